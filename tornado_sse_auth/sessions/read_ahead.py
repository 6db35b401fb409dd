"""Sessions in use are read again before their time in the cache is over: who comes often waits for no store."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextvars import Context

from ..clock import Clock
from ..errors import StoreUnavailableError
from ..identity import Credential, Session
from ..metrics import Metrics
from ..stores.base import SessionStore
from .cache import Authenticated, SessionCache

__all__ = ["ReadAhead"]

_log = logging.getLogger(__name__)

AT_ONCE = 256  # what comes beside so many is read when it is asked for


class ReadAhead:
    """Confirms what the cache has, for another time to live. It writes nothing: what has changed, or is due to be
    written, leaves the cache, and the next request with that credential sees to it.

    `due`: whether a session has to be written when it is used with a credential.
    """

    def __init__(
        self,
        store: SessionStore,
        cache: SessionCache,
        *,
        due: Callable[[Session, Credential], bool],
        metrics: Metrics,
        clock: Clock,
    ) -> None:
        self._store = store
        self._cache = cache
        self._due = due
        self._metrics = metrics
        self._clock = clock
        self._reading: dict[bytes, asyncio.Task[None]] = {}

    async def close(self) -> None:
        """Give up what is being read. Twice is once."""
        reading = list(self._reading.values())
        for task in reading:
            task.cancel()
        await asyncio.gather(*reading, return_exceptions=True)

    def begin(self, digest: bytes, found: Authenticated) -> None:
        """Read in the background what the credential of this digest opens; the cache has `found`."""
        if digest in self._reading or len(self._reading) >= AT_ONCE:
            return
        # The deadline of the request that happens to come now is not this one's, nor is its id.
        context = Context()
        # From here on, not from when the task begins: what ends the session in between must count.
        reading = self._confirm(digest, found, self._cache.begin_fill())
        task = asyncio.get_running_loop().create_task(reading, name="read ahead", context=context)
        self._reading[digest] = task
        task.add_done_callback(lambda _: self._reading.pop(digest, None))

    async def _confirm(self, digest: bytes, found: Authenticated, begun: int) -> None:
        started = self._clock.monotonic()
        try:
            session = await self._store.find_by_credential(digest)
        except StoreUnavailableError as error:  # who asks when the time is over is told
            _log.debug("session %s was not read ahead: %s", found.session.id, error)
            return
        self._metrics.timing("store.lookup", self._clock.monotonic() - started)
        credential = found.credential
        if (
            session is None
            or session.version != found.session.version
            or session.credential(digest) != credential
            or self._due(session, credential)
        ):
            self._cache.forget(digest)
        else:
            self._cache.fill(digest, Authenticated(session, credential), begun)
