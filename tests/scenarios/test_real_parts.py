"""The main path on real parts: a real MongoDB, a real OpenID provider, streams that outlive many access tokens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from motor.motor_asyncio import AsyncIOMotorClient
from pymongo import AsyncMongoClient

from tests.parts import provider as oidc
from tests.parts.mongod import ExternalMongo, ReplicaSet, drop_database
from tests.scenarios.server import Running, serve
from tests.soak.steady import Load, steady
from tornado_sse_auth import Keyring, MongoEventLog, MongoSessionStore, OAuthProvider

SCOPES = "openid offline_access profile content:read"
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


async def test_streams_outlive_their_tokens(
    mongod: ReplicaSet | ExternalMongo, provider: oidc.Provider, database_name: str
) -> None:
    """Twenty sessions with three streams each: one refresh a period for each, no token seen twice, quiet within a
    second after the streams have gone, and no credential or token in any log line or document (SEC-56, SEC-58). The
    short form of `python -m tests.soak --scenario steady`; a sample server with each driver, at the same time."""
    databases = {driver: f"{database_name}_{driver}" for driver in ("motor", "pymongo")}
    loads = {driver: Load(seconds=15, access_ttl=5, driver=driver) for driver in databases}
    try:
        found = await asyncio.gather(
            *(steady(loads[driver], mongod.uri, name, lambda text: None) for driver, name in databases.items())
        )
        assert [findings.failures for findings in found] == [[], []]
    finally:
        for name in databases.values():
            await asyncio.to_thread(drop_database, mongod.uri, name)


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
