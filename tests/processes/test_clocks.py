"""Two processes whose wall clocks differ, and one that jumps back an hour, on a real database and a real provider."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

import pytest
from pymongo import AsyncMongoClient

from tests.parts import provider as oidc
from tests.parts.mongod import ReplicaSet, find_binary, replica_set
from tests.parts.provider import sign_in
from tests.parts.require import require
from tests.parts.sse_client import SSEClient
from tests.processes.session_history import SessionHistory
from tests.scenarios.server import Running, serve
from tornado_sse_auth import Keyring, MongoEventLog, MongoSessionStore, OAuthProvider

DATABASE = "clocks"
KEYS = Keyring.generate()
ACCESS_TTL = 4
EARLIEST = 0.85  # of a token's life: when the first refresh may come
SESSIONS = 3
HOUR = 3600.0


class WrongClock:
    """The system's clocks, the wall clock off by some seconds."""

    def __init__(self, off: float = 0.0) -> None:
        self.off = off

    def time(self) -> float:
        """Wall clock, seconds since the epoch."""
        return time.time() + self.off

    def monotonic(self) -> float:
        """Seconds from an arbitrary start."""
        return time.monotonic()


@asynccontextmanager
async def process(provider: oidc.Provider, uri: str, clock: WrongClock) -> AsyncIterator[Running]:
    """What one process has of its own, on a clock of its own."""
    async with AsyncMongoClient(uri) as client:
        store = MongoSessionStore(client[DATABASE], KEYS, clock=clock)
        upstream = OAuthProvider(
            issuer=provider.issuer,
            client_id=provider.client_id,
            client_secret=provider.client_secret,
            scopes="openid offline_access profile content:read",
        )
        events = MongoEventLog(client[DATABASE], clock=clock)
        async with serve(store, upstream, events=events, clock=clock, refresh_interval=0.2) as app:
            await provider.add_redirect_uri(f"{app.url}/auth/callback")
            yield app


async def cookie_of(app: Running, account: str) -> str:
    done = await sign_in(f"{app.url}/auth/login", account=account)
    assert done.response.status_code == 302, done.response.text
    return done.cookies[app.cookie]


def stream(app: Running, cookie: str) -> SSEClient:
    return app.stream("/content", headers={"Cookie": f"{app.cookie}={cookie}"})


@pytest.fixture
def own_mongod() -> Iterator[ReplicaSet]:
    """One that looks for expired documents each second instead of each minute."""
    require(find_binary)
    with replica_set(1, "--setParameter", "ttlMonitorSleepSecs=1") as servers:
        yield servers


async def test_clocks_that_differ_and_one_that_jumps(
    own_mongod: ReplicaSet, provider: oidc.Provider, account: str
) -> None:
    """REL-11: no token is spent twice, there is no storm of refreshes and none is late, and no session lives on by a
    clock that stands in the past."""
    before = await provider.stats()
    wrong, right = WrongClock(30.0), WrongClock()
    async with AsyncExitStack() as stack:
        ahead = await stack.enter_async_context(process(provider, own_mongod.uri, wrong))
        true = await stack.enter_async_context(process(provider, own_mongod.uri, right))
        history = await stack.enter_async_context(SessionHistory(own_mongod.uri, DATABASE))
        streams = []
        for number in range(SESSIONS):
            name = f"{account}-{number}"
            await provider.change_account(name, access_ttl=ACCESS_TTL)
            cookie = await cookie_of((ahead, true)[number % 2], name)
            streams += [await stack.enter_async_context(stream(app, cookie)) for app in (ahead, true)]
        await periods_without_a_storm(history, 2)

        wrong.off = -HOUR
        await periods_without_a_storm(history, 2)

        # A session that ends, in the eyes of one process in an hour, in the eyes of the database now.
        short, credential = await true.auth.sessions.create(user_id="short")
        ends_at = right.time() + 3.0
        ending = [await stack.enter_async_context(stream(app, credential.reveal())) for app in (ahead, true)]
        await true.auth.sessions.update(short.id, lambda session: replace(session, expires_at=ends_at))
        reasons = [(await one.next("end", timeout=60)).json()["reason"] for one in ending]
        assert set(reasons) <= {"revoked", "session_expired"}
        for app in (ahead, true):
            async with app.client() as client:
                headers = {"Cookie": f"{app.cookie}={credential.reveal()}"}
                assert (await client.get("/me", headers=headers)).status_code == 401
        assert not any(one.ended for one in streams)
    stats = await provider.stats()
    assert history.violations == []
    assert not history.reattempts
    assert not history.lost
    assert stats.errors == before.errors
    assert stats.grants_revoked == before.grants_revoked


async def periods_without_a_storm(history: SessionHistory, periods: int) -> None:
    """Every session is refreshed for so many periods, and no more often than one process would, but for one refresh
    by which the two find out who leads."""
    begun, before = time.monotonic(), history.refreshes.copy()
    await history.until(
        lambda seen: (
            len(seen.refreshes) == SESSIONS
            and min((seen.refreshes - before).get(name, 0) for name in seen.refreshes) >= periods
        ),
        timeout=ACCESS_TTL * (periods + 6),
    )
    most = max((history.refreshes - before).values())
    assert most <= (time.monotonic() - begun) / (EARLIEST * ACCESS_TTL) + 2
