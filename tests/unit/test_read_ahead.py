"""Who comes often waits for no store, and is refused no later than anybody else."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from tests.stores.backends import make_session
from tornado_sse_auth.audit import AuditLog
from tornado_sse_auth.errors import InvalidTokenError, StoreUnavailableError
from tornado_sse_auth.identity import Credential, CredentialKind, Secret, Session, SessionState
from tornado_sse_auth.options import Options
from tornado_sse_auth.sessions.credentials import PresentedCredential
from tornado_sse_auth.sessions.manager import SessionManager
from tornado_sse_auth.stores import MemorySessionStore
from tornado_sse_auth.testing import ManualClock, RecordingMetrics

TTL = 5.0
TOUCHED_EVERY = 3600.0  # seconds, with the options' defaults


class Store(MemorySessionStore):
    """Counts look-ups; they wait for `open`, and fail while it is `away`."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock=clock)
        self.look_ups = 0
        self.open = asyncio.Event()
        self.open.set()
        self.away = False

    async def find_by_credential(self, digest: bytes) -> Session | None:
        self.look_ups += 1
        await self.open.wait()
        if self.away:
            raise StoreUnavailableError
        return await super().find_by_credential(digest)


class World:
    """One user with one cookie, whose session the cache has."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.store = Store(self.clock)
        options = Options(public_url="http://127.0.0.1", session_cache_ttl=TTL)
        self.sessions = SessionManager(
            self.store, options, metrics=RecordingMetrics(), clock=self.clock, audit=AuditLog(self.clock)
        )
        secret = Secret.random()
        self.cookie = PresentedCredential(secret, secret.digest(), CredentialKind.COOKIE, True)

    async def enter(self) -> Session:
        credential = Credential(
            digest=self.cookie.digest,
            kind=CredentialKind.COOKIE,
            created_at=self.clock.time(),
            expires_at=self.clock.time() + 9e5,
        )
        ends_at = self.clock.time() + 9e5
        session = make_session(self.clock, credentials=(credential,), expires_at=ends_at, idle_expires_at=ends_at)
        await self.store.insert(session)
        await self.sessions.validate(self.cookie)
        return session

    async def pass_by(self, seconds: float) -> None:
        """So much later; what runs in the background has run."""
        self.clock.advance(seconds)
        for _ in range(20):
            await asyncio.sleep(0)

    async def come(self, after: float) -> bool:
        """Whether one who comes then is answered from the cache."""
        await self.pass_by(after)
        hit = self.sessions.cached(self.cookie) is not None
        await self.pass_by(0)
        return hit


async def test_who_comes_often_never_waits() -> None:
    """REL-18: each answer is from the cache, however long it goes on, and no older than its time to live; the store is
    asked no more than once in the last two fifths of it, by however many requests. Who comes seldom asks the store."""
    world = World()
    await world.enter()
    assert world.store.look_ups == 1
    assert all([await world.come(after=1.0) for _ in range(60)])
    assert 60 / TTL < world.store.look_ups < 60 / TTL * 2
    await world.pass_by(TTL - 1)
    world.store.look_ups = 0
    world.store.open.clear()
    assert all([await world.come(after=0) for _ in range(100)])
    assert world.store.look_ups == 1
    world.store.open.set()
    assert await world.come(after=2.0)
    assert not await world.come(after=TTL)
    await world.sessions.close()


@pytest.mark.parametrize("what", ["revoked", "changed", "to be touched"])
async def test_what_is_no_longer_so_leaves_the_cache(what: str) -> None:
    """SEC-50: nobody tells, and it is found out before the entry's time is over. Nothing is written in the background:
    the next request counts the session as used."""
    world = World()
    session = await world.enter()
    if what == "revoked":
        await world.store.delete(session.id)
    elif what == "changed":
        await world.store.update(replace(session, scopes=frozenset()))
    else:
        while await world.come(after=2.0):
            assert world.clock.time() - session.last_seen < TOUCHED_EVERY + 2 * TTL
    assert await world.come(after=TTL - 1) is (what != "to be touched")
    stored = await world.store.find(session.id)
    assert stored is None or stored.last_seen == session.last_seen
    if what == "revoked":
        with pytest.raises(InvalidTokenError):
            await world.sessions.validate(world.cookie)
    else:
        assert not await world.come(after=0)
        found = await world.sessions.validate(world.cookie)
        assert (found.session.scopes == frozenset()) is (what == "changed")
        assert (found.session.last_seen > session.last_seen) is (what == "to be touched")
    await world.sessions.close()


async def test_a_store_that_is_away_is_no_end() -> None:
    """REL-06: what could not be read ahead stays until its own time is over; only then is somebody told. A manager that
    closes gives up what it reads."""
    world = World()
    await world.enter()
    world.store.away = True
    assert await world.come(after=TTL - 1)
    assert await world.come(after=0.5)
    assert world.store.look_ups > 1
    assert not await world.come(after=0.6)
    with pytest.raises(StoreUnavailableError):
        await world.sessions.validate(world.cookie)
    world.store.away = False
    await world.sessions.validate(world.cookie)
    world.store.open.clear()
    assert await world.come(after=TTL - 1)
    async with asyncio.timeout(5):
        await world.sessions.close()


async def test_what_ends_just_then_is_not_kept() -> None:
    """SEC-50: a session ends after its reading was asked for and before it began, and the store, as one that lags
    behind does, has it still: the cache answers for it no more."""
    world = World()
    session = await world.enter()
    world.clock.advance(TTL - 1)
    assert world.sessions.cached(world.cookie) is not None
    world.sessions.watch.ended(session.id, "revoked")
    await world.pass_by(0)
    assert world.store.look_ups == 2
    assert world.sessions.cached(world.cookie) is None
    await world.sessions.close()


async def test_a_credential_that_was_shortened_by_hand_ends() -> None:
    """SEC-50: an operator wrote into the store and counted no version: what is in use knows it all the same."""
    world = World()
    session = await world.enter()
    (credential,) = session.credentials
    shorter = replace(credential, expires_at=world.clock.time() + 20)
    world.store._sessions[session.id] = replace(session, credentials=(shorter,))
    assert await world.come(after=TTL - 1)
    assert not await world.come(after=0)
    assert (await world.sessions.validate(world.cookie)).ends_at == shorter.expires_at
    await world.sessions.close()


async def test_who_waits_for_its_user_is_read_ahead_too() -> None:
    """REL-18: such a session is not counted as used, so nothing is due to be written, however long it waits."""
    world = World()
    session = await world.enter()
    waiting = replace(session, state=SessionState.REAUTHORIZATION, reauth=Secret.random(), reauth_reason="revoked")
    world.store._sessions[session.id] = replace(waiting, last_seen=world.clock.time() - 2 * TOUCHED_EVERY)
    world.sessions._cache.clear()
    await world.sessions.validate(world.cookie)
    assert all([await world.come(after=1.0) for _ in range(20)])
    await world.sessions.close()
