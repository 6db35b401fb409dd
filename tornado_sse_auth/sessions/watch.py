"""What happens to sessions, in this process or any other, told to those who hold something of theirs."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Iterable
from typing import Protocol

from ..clock import Clock
from ..errors import StoreUnavailableError
from ..identity import Session
from ..periodic import MonotonicPeriodicCallback
from ..stores.base import ChangeKind, SessionChange, SessionStore
from .cache import SessionCache

__all__ = ["OpenSessions", "SessionListener", "SessionWatch"]

_log = logging.getLogger(__name__)

CONCURRENT_READS = 10
FEED_CHECK = 5.0
RETRY_AFTER = (0.1, 0.2, 0.5, 1.0, 2.0)


class SessionListener(Protocol):
    """Hears what became of sessions. Called on the loop; does not block."""

    def session_changed(self, session: Session) -> None:
        """This is the session's newest version."""
        ...

    def session_ended(self, session_id: str, reason: str) -> None:
        """The session is over; `reason` is a close reason."""
        ...


class OpenSessions(Protocol):
    """Which stored sessions have open streams, or other work under way, in this process."""

    def version(self, session_id: str) -> int | None:
        """The newest version known of such a session; None for any other."""
        ...

    def session_ids(self) -> Iterable[str]:
        """Every such session."""
        ...


class Work(OpenSessions, SessionListener, Protocol):
    """Work of sessions that must end with them, and knows whose it is."""


class SessionWatch:
    """Follows the store's change feed, keeps the cache honest, and tells the listeners.

    A session is read again only where this process holds a stream or other work of it. Reads are coalesced per session,
    at most 10 at a time, and repeated until the store answers. While the feed is silent, each such session is read each
    five seconds.
    """

    def __init__(self, store: SessionStore, cache: SessionCache, clock: Clock) -> None:
        self._store = store
        self._cache = cache
        self._clock = clock
        self._listeners: list[SessionListener] = []
        self._open: list[OpenSessions] = []
        self._work: list[Work] = []
        self._unsubscribe: Callable[[], None] | None = None
        self._reading: dict[str, asyncio.Task[None]] = {}
        self._again: set[str] = set()
        self._slots = asyncio.Semaphore(CONCURRENT_READS)
        self._periodic = MonotonicPeriodicCallback(self.mind_the_feed, FEED_CHECK * 1000)

    def start(self, open_sessions: OpenSessions, *listeners: SessionListener) -> None:
        """Begin to follow the feed on behalf of `listeners`."""
        self._open = [open_sessions, *self._work]
        self._listeners = [*listeners, *self._work]
        self._unsubscribe = self._store.subscribe(self._on_change)
        self._periodic.start()

    def add(self, work: Work) -> None:
        """Follow the feed on behalf of `work`, too, from now on and at each start."""
        self._work.append(work)
        if self._unsubscribe is not None:
            self._open.append(work)
            self._listeners.append(work)

    async def close(self) -> None:
        """Stop following. Twice is once."""
        if self._unsubscribe is not None:
            self._unsubscribe()
            self._unsubscribe = None
        self._periodic.stop()
        tasks = list(self._reading.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def changed(self, session: Session) -> None:
        """A new version was stored by this process."""
        self._cache.invalidate(session.id, session.version)
        for listener in self._listeners:
            listener.session_changed(session)

    def ended(self, session_id: str, reason: str) -> None:
        """The session is over: nothing answers for it any more."""
        self._cache.end(session_id)
        for listener in self._listeners:
            listener.session_ended(session_id, reason)

    def read_again(self, session_id: str) -> None:
        """Read the session in the background and tell the listeners what became of it."""
        if session_id in self._reading:
            self._again.add(session_id)
            return
        self._reading[session_id] = asyncio.create_task(self._read(session_id), name=f"read session {session_id}")

    def mind_the_feed(self) -> None:
        """Called each five seconds: what the feed does not tell must be asked for."""
        if not self._store.feed_alive:
            _log.warning("the change feed is silent; sessions with open streams are read again")
            self._read_all()

    def _read_all(self) -> None:
        for open_sessions in self._open:
            for session_id in list(open_sessions.session_ids()):
                self.read_again(session_id)

    def _on_change(self, change: SessionChange) -> None:
        if change.kind is ChangeKind.LOST:
            self._cache.clear()
            self._read_all()
        elif change.kind is ChangeKind.ENDED:
            if not self._cache.is_ended(change.session_id):
                self.ended(change.session_id, "revoked")
        else:
            version = math.inf if change.version is None else change.version
            self._cache.invalidate(change.session_id, version)
            for open_sessions in self._open:
                known = open_sessions.version(change.session_id)
                if known is not None and known < version:  # else it is mostly what this process itself has written
                    self.read_again(change.session_id)
                    break

    async def _read(self, session_id: str) -> None:
        try:
            await self._read_and_tell(session_id)
        finally:
            # In this very step: what comes a turn of the loop later begins a read of its own.
            del self._reading[session_id]

    async def _read_and_tell(self, session_id: str) -> None:
        failures = 0
        while True:
            self._again.discard(session_id)
            try:
                async with self._slots:
                    session = await self._store.find(session_id)
            except StoreUnavailableError:
                await asyncio.sleep(RETRY_AFTER[min(failures, len(RETRY_AFTER) - 1)])
                failures += 1
                continue
            if session is None:
                self.ended(session_id, "revoked")
                return
            if session_id not in self._again:
                for listener in self._listeners:
                    listener.session_changed(session)
                return
