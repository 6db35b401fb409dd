"""What happens to a session reaches whoever holds a stream of it, however unlucky the moment."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import replace

from tests.stores.backends import make_session
from tornado_sse_auth.identity import Session
from tornado_sse_auth.listeners import Listeners
from tornado_sse_auth.sessions.cache import Authenticated, SessionCache
from tornado_sse_auth.sessions.watch import SessionWatch
from tornado_sse_auth.stores import MemorySessionStore
from tornado_sse_auth.stores.base import ChangeKind, SessionChange
from tornado_sse_auth.testing import ManualClock


class Streams:
    """Holds a stream of every session, and hears; `meanwhile` runs at the first news."""

    def __init__(self) -> None:
        self.told: list[Session] = []
        self.heard = asyncio.Event()
        self.open: set[str] = {"s1"}

    def version(self, session_id: str) -> int | None:
        return max((told.version for told in self.told), default=0) if session_id in self.open else None

    def session_ids(self) -> Iterable[str]:
        return tuple(self.open)

    def session_changed(self, session: Session) -> None:
        self.told.append(session)
        self.heard.set()

    def session_ended(self, session_id: str, reason: str) -> None:
        self.open.discard(session_id)


async def test_a_change_at_the_end_of_a_read_is_read_too() -> None:
    """SEC-50: the second of two changes arrives when the first has just been told."""
    clock = ManualClock()
    store = MemorySessionStore(clock=clock)
    await store.insert(make_session(clock, "s1"))
    watch = SessionWatch(store, SessionCache(size=10, ttl=5.0, clock=clock), clock)
    streams = Streams()
    watch.start(streams, streams)
    change = SessionChange(ChangeKind.CHANGED, "s1")
    watch._on_change(change)
    for expected in range(1, 20):
        async with asyncio.timeout(5):
            await streams.heard.wait()  # woken in the very turn in which the read has ended
        assert len(streams.told) == expected
        streams.heard.clear()
        watch._on_change(change)
    await watch.close()


async def test_what_a_process_has_written_itself_is_not_read_again() -> None:
    """The feed tells every process of every write, the writer too."""
    clock = ManualClock()
    store = MemorySessionStore(clock=clock)
    await store.insert(make_session(clock, "s1"))
    session = await store.find("s1")
    assert session is not None
    watch = SessionWatch(store, SessionCache(size=10, ttl=5.0, clock=clock), clock)
    streams = Streams()
    watch.start(streams, streams)
    store._listeners = Listeners()
    written = await store.update(replace(session, scopes=frozenset()))
    watch.changed(written)
    watch._on_change(SessionChange(ChangeKind.CHANGED, "s1", written.version))
    assert not watch._reading
    watch._on_change(SessionChange(ChangeKind.CHANGED, "s1", written.version + 1))
    assert watch._reading
    await watch.close()


async def test_what_is_known_of_a_stream_excuses_no_cached_answer() -> None:
    """SEC-50: a stream was opened on the newest version before the feed told of it; another credential's cached answer
    is older, and must go when the feed does. What was read of that very version stays."""
    clock = ManualClock()
    store = MemorySessionStore(clock=clock)
    old = make_session(clock, "s1")
    await store.insert(old)
    cache = SessionCache(size=10, ttl=5.0, clock=clock)
    cookie, bearer = b"c" * 32, b"b" * 32
    cache.fill(cookie, Authenticated(old, old.credentials[0]), cache.begin_fill())
    watch = SessionWatch(store, cache, clock)
    streams = Streams()
    watch.start(streams, streams)
    store._listeners = Listeners()
    narrowed = await store.update(replace(old, scopes=frozenset()))
    streams.told.append(narrowed)
    cache.fill(bearer, Authenticated(narrowed, narrowed.credentials[0]), cache.begin_fill())
    watch._on_change(SessionChange(ChangeKind.CHANGED, "s1", narrowed.version))
    assert cache.get(cookie) is None
    assert cache.get(bearer) is not None
    assert not watch._reading
    cache.end("s1")
    assert cache.get(bearer) is None
    await watch.close()


async def test_while_the_feed_is_silent_open_streams_are_looked_after() -> None:
    """SEC-50: revoked and narrowed elsewhere, and nobody tells."""
    clock = ManualClock()

    class Mute(MemorySessionStore):
        alive = True

        @property
        def feed_alive(self) -> bool:
            return self.alive

    store = Mute(clock=clock)
    session = make_session(clock, "s1")
    await store.insert(session)
    await store.insert(make_session(clock, "s2", credentials=()))
    watch = SessionWatch(store, SessionCache(size=10, ttl=5.0, clock=clock), clock)
    streams = Streams()
    streams.open = {"s1", "s2"}
    watch.start(streams, streams)
    store._listeners = Listeners()
    await store.update(replace(session, scopes=frozenset()))
    watch.mind_the_feed()
    await asyncio.sleep(0)
    assert streams.told == []
    store.alive = False
    watch.mind_the_feed()
    await asyncio.wait_for(asyncio.gather(*watch._reading.values()), 5)
    assert {told.id: told.scopes for told in streams.told}["s1"] == frozenset()
    await watch.close()
