"""Writes to sessions: read, change, write on condition that nobody else wrote, and tell."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from ..clock import Clock
from ..errors import StoreUnavailableError
from ..identity import Session
from ..metrics import Metrics
from ..stores.base import SessionStore, VersionConflict
from .watch import SessionWatch

__all__ = ["SessionWrites", "until_written"]

_log = logging.getLogger(__name__)

T = TypeVar("T")

UPDATE_ATTEMPTS = 8


class SessionWrites:
    """Times every write, and tells the watch of each new version."""

    def __init__(self, store: SessionStore, watch: SessionWatch, *, metrics: Metrics, clock: Clock) -> None:
        self._store = store
        self._watch = watch
        self._metrics = metrics
        self._clock = clock

    async def update(self, session_id: str, change: Callable[[Session], Session | None]) -> Session | None:
        """Read, change, write; again when somebody else wrote. None: no such session, or `change` declined."""
        return await self._change(session_id, await self._store.find(session_id), change)

    async def update_read(self, session: Session, change: Callable[[Session], Session | None]) -> Session | None:
        """The same for a session that was read or written just now: it is read only where somebody else wrote since."""
        return await self._change(session.id, session, change)

    async def _change(
        self, session_id: str, session: Session | None, change: Callable[[Session], Session | None]
    ) -> Session | None:
        for _ in range(UPDATE_ATTEMPTS):
            changed = change(session) if session is not None else None
            if changed is None:
                return None
            try:
                written = await self.written(self._store.update(changed))
            except VersionConflict:
                session = await self._store.find(session_id)
                continue
            self._watch.changed(written)
            return written
        raise StoreUnavailableError(reason=f"session {session_id} was written by others {UPDATE_ATTEMPTS} times")

    async def written(self, write: Awaitable[T]) -> T:
        """The result of a write to the store, which is timed."""
        started = self._clock.monotonic()
        result = await write
        self._metrics.timing("store.write", self._clock.monotonic() - started)
        return result


async def until_written(write: Callable[[], Awaitable[T]], on_delay: Callable[[], None] | None = None) -> T:
    """Write the outcome of a refresh again until the store has acknowledged it; the owner of the attempt bounds the
    wait. `on_delay` is called each time that it was not."""
    pause = 0.1
    while True:
        try:
            return await write()
        except StoreUnavailableError as error:
            if on_delay is not None:
                on_delay()
            _log.warning("the outcome of a refresh is not stored yet: %s", error)
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311
            pause = min(2.0, pause * 2)
