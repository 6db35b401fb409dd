"""The main path on real parts: a real MongoDB, a real OpenID provider, streams that outlive many access tokens."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx
import pytest
from motor.motor_asyncio import AsyncIOMotorClient
from pymongo import AsyncMongoClient

from tests.parts import provider as oidc
from tests.parts.mongod import ExternalMongo, ReplicaSet
from tests.parts.sse_client import SSEClient
from tests.scenarios.server import Running, serve
from tornado_sse_auth import Keyring, MongoEventLog, MongoSessionStore, OAuthProvider

SCOPES = "openid offline_access profile content:read"
ACCESS_TTL = 6
PERIODS = 3
USERS = 20
STREAMS = 3
KEYS = Keyring.generate()


@asynccontextmanager
async def database(uri: str, name: str, driver: str) -> AsyncIterator[Any]:
    """A database of either driver; the client is the caller's, and closed here."""
    if driver == "motor":
        motor: Any = AsyncIOMotorClient(uri)
        try:
            yield motor[name]
        finally:
            motor.close()
    else:
        async with AsyncMongoClient[dict[str, Any]](uri) as client:
            yield client[name]


@asynccontextmanager
async def application(provider: oidc.Provider, uri: str, name: str, driver: str) -> AsyncIterator[Running]:
    """One process's worth of the framework over real parts."""
    async with database(uri, name, driver) as opened:
        upstream = OAuthProvider(
            issuer=provider.issuer,
            client_id=provider.client_id,
            client_secret=provider.client_secret,
            scopes=SCOPES,
        )
        async with serve(
            MongoSessionStore(opened, KEYS),
            upstream,
            events=MongoEventLog(opened),
            refresh_interval=0.2,
        ) as app:
            await provider.add_redirect_uri(f"{app.url}/auth/callback")
            yield app


async def signed_in(app: Running, account: str, path: str = "/auth/login") -> httpx.Cookies:
    """The application's cookies after a whole sign-in."""
    done = await oidc.sign_in(f"{app.url}{path}", account=account)
    assert done.response.status_code == 302, done.response.text
    cookies = httpx.Cookies()
    cookies.set(app.cookie, done.cookies[app.cookie], domain="127.0.0.1")
    return cookies


async def until(condition: Any, *, seconds: float) -> None:
    """Wait for what has no event of its own."""
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110 - the condition is in another process
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("driver", ["motor", "pymongo"])
async def test_streams_outlive_their_tokens(
    own_provider: oidc.Provider,
    mongod: ReplicaSet | ExternalMongo,
    database_name: str,
    driver: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Twenty sessions with three streams each: one refresh a period for each, no token seen twice, none lost, quiet
    after the streams have gone, and no credential or token in any log line at DEBUG (SEC-56, SEC-58)."""
    caplog.set_level(logging.DEBUG)
    # The clients of this test run in the same process, and theirs write down what they send.
    for library in ("httpx", "httpcore"):
        caplog.set_level(logging.WARNING, logger=library)
    secrets: set[str] = set()
    async with application(own_provider, mongod.uri, database_name, driver) as app, AsyncExitStack() as stack:
        accounts = [f"user{number}" for number in range(USERS)]
        for account in accounts:
            await own_provider.change_account(account, access_ttl=ACCESS_TTL)
        jars = [await signed_in(app, account) for account in accounts]
        streams: list[SSEClient] = []
        for jar in jars:
            secrets.add(str(jar[app.cookie]))
            for _ in range(STREAMS):
                streams.append(await stack.enter_async_context(app.stream("/content", cookies=jar)))
        assert len(app.auth.registry) == USERS * STREAMS

        async def all_scheduled() -> bool:
            return app.auth.refresh_manager.scheduled == USERS  # one that is being refreshed is not, for a moment

        await until(all_scheduled, seconds=ACCESS_TTL)

        async def enough() -> bool:
            refreshes = (await own_provider.stats()).refreshes
            return len(refreshes) == USERS and min(refreshes.values()) >= PERIODS

        await until(enough, seconds=ACCESS_TTL * (PERIODS + 2))
        stats = await own_provider.stats()
        assert max(stats.refreshes.values()) <= PERIODS + 1  # one a period, whatever the number of streams
        assert stats.errors == {}
        assert stats.grants_revoked == 0
        await app.auth.events.publish("content", {"still": "here"})
        for stream in streams:
            assert (await stream.next("message")).json() == {"still": "here"}
        async with app.client(cookies=jars[0]) as client:
            secrets.add((await client.get("/upstream")).json()["token"])
        for user in accounts:
            for session in await app.auth.sessions.sessions_of(f"{own_provider.issuer}|{user}"):
                assert session.token_set is not None
                secrets.add(session.token_set.access_token.reveal())
                assert session.token_set.refresh_token is not None
                secrets.add(session.token_set.refresh_token.reveal())
        for stream in streams:
            await stream.close()

        async def gone() -> bool:
            return len(app.auth.registry) == 0

        await until(gone, seconds=5)
        assert app.auth.refresh_manager.scheduled == 0
        before = (await own_provider.stats()).refreshes
        await asyncio.sleep(ACCESS_TTL)  # a whole period in which nothing may happen
        assert (await own_provider.stats()).refreshes == before
        dump = await _dump(mongod.uri, database_name)
    assert len(secrets) > 2 * USERS
    for secret in secrets:
        assert secret not in caplog.text
        assert secret not in dump


async def _dump(uri: str, name: str) -> str:
    async with database(uri, name, "pymongo") as opened:
        names = await opened.list_collection_names()
        return "\n".join([repr(document) for name in names async for document in opened[name].find()])


async def test_two_processes_share_everything_but_memory(
    provider: oidc.Provider, mongod: ReplicaSet | ExternalMongo, database_name: str
) -> None:
    """SEC-50: signed in at one, known at the other; an event published at one arrives at both; a sign-out at one ends
    the streams and the credential at the other."""
    async with (
        application(provider, mongod.uri, database_name, "motor") as one,
        application(provider, mongod.uri, database_name, "pymongo") as two,
    ):
        jar = await signed_in(one, "shared")
        cookie = {"Cookie": f"{two.cookie}={jar[one.cookie]}"}
        async with one.stream("/content", cookies=jar) as here, two.stream("/content", headers=cookie) as there:
            assert (await here.next("open")).json() == (await there.next("open")).json()
            await two.auth.events.publish("content", 1)
            await one.auth.events.publish("content", 2)
            for stream in (here, there):
                assert sorted([(await stream.next("message")).json(), (await stream.next("message")).json()]) == [1, 2]
            assert [event.id for event in here.events[1:]] == [event.id for event in there.events[1:]]
            async with one.client(cookies=jar) as client:
                out = await client.post("/auth/logout", headers={"Origin": one.url})
                assert out.status_code == 204
            assert (await there.next("end")).json() == {"reason": "revoked"}
        async with two.client() as client:
            assert (await client.get("/me", headers=cookie)).status_code == 401


async def test_the_user_must_sign_in_again_at_a_real_provider(
    own_provider: oidc.Provider, mongod: ReplicaSet | ExternalMongo, database_name: str
) -> None:
    """An administrator ends the grant: `auth_required`, a sign-in in another process, `auth_restored` here."""
    await own_provider.change_account("carol", access_ttl=3)
    async with (
        application(own_provider, mongod.uri, database_name, "motor") as one,
        application(own_provider, mongod.uri, database_name, "pymongo") as two,
    ):
        jar = await signed_in(one, "carol")
        async with one.stream("/content", cookies=jar) as stream:
            session_id = (await stream.next("open")).json()["session_id"]
            await own_provider.revoke_account("carol")
            required = (await stream.next("auth_required", timeout=15)).json()
            path = required["authorization_url"].removeprefix(one.url)
            await signed_in(two, "carol", path)
            assert (await stream.next("auth_restored")).json()["session_id"] == session_id
            await two.auth.events.publish("content", "on")
            assert (await stream.next("message")).data == "on"
