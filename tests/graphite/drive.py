"""Two sample servers that do everything that is measured, once at least, within some seconds."""

from __future__ import annotations

import asyncio
import base64
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx
from pymongo import AsyncMongoClient

from tests.parts.graphite import Graphite
from tests.parts.mongod import ReplicaSet
from tests.parts.sample_server import SampleServer, User, signed_in
from tests.parts.scripted_provider import Answer, ScriptedProvider

LIFE = 3  # of an access token, seconds
STREAMS = 4
REFUSED = 5


@asynccontextmanager
async def driven_servers(graphite: Graphite, mongod: ReplicaSet) -> AsyncIterator[list[SampleServer]]:
    """The servers, with everything done; streams are still open."""
    async with AsyncExitStack() as stack:
        provider = await stack.enter_async_context(ScriptedProvider(expires_in=LIFE))
        database = f"graphite_{secrets.token_hex(6)}"
        servers = await _servers(stack, graphite, mongod, database, provider)
        users = [await signed_in(servers[0], f"user{number}") for number in range(STREAMS)]
        streams = [await stack.enter_async_context(user.stream(server)) for user in users[1:] for server in servers]
        alone = await stack.enter_async_context(users[0].stream(servers[0]))
        await _requests(servers[0], users)
        await _slow_store(servers, mongod)
        await _damaged_session(servers, mongod, database)
        await _slow_provider(servers[0], provider)
        await _refreshes(provider)
        await alone.close()
        await users[-1].sign_out()
        for stream in streams:
            await stream.next("tick", timeout=10)
        yield servers


async def _servers(
    stack: AsyncExitStack, graphite: Graphite, mongod: ReplicaSet, database: str, provider: ScriptedProvider
) -> list[SampleServer]:
    key = base64.b64encode(secrets.token_bytes(32)).decode()
    servers = []
    for number, driver in enumerate(("pymongo", "motor")):
        options = [f"--statsd=127.0.0.1:{graphite.statsd_port}"]
        options += [f"--statsd-instance={number}"] if number else []
        server = SampleServer(provider, mongod.uri, database, *options, encryption_key=key, driver=driver)
        stack.callback(server.kill)
        servers.append(server)
    await asyncio.gather(*(asyncio.to_thread(server.start) for server in servers))
    return servers


async def _requests(server: SampleServer, users: Sequence[User]) -> None:
    for user in users:
        async with user.client(server) as client:
            for _ in range(10):
                assert (await client.get("/me")).status_code == 200
    async with httpx.AsyncClient(base_url=server.url, trust_env=False) as stranger:
        for _ in range(REFUSED):
            bearer = {"Authorization": f"Bearer {secrets.token_urlsafe(32)}"}
            assert (await stranger.get("/me", headers=bearer)).status_code == 401


async def _slow_store(servers: Sequence[SampleServer], mongod: ReplicaSet) -> None:
    """Look-ups, of people whom this server has not seen, that meet a MongoDB which stands still for a moment."""
    strangers = [await signed_in(servers[0], f"stranger{number}") for number in range(STREAMS)]
    async with httpx.AsyncClient(base_url=servers[1].url, trust_env=False, timeout=10) as client:
        with mongod.members[0].stopped():
            asked = [
                asyncio.create_task(client.get("/me", headers={"Authorization": f"Bearer {stranger.bearer}"}))
                for stranger in strangers
            ]
            await asyncio.sleep(0.3)
        assert {answer.status_code for answer in await asyncio.gather(*asked)} == {200}


async def _damaged_session(servers: Sequence[SampleServer], mongod: ReplicaSet, database: str) -> None:
    """One that another version has written, for whoever reads it here."""
    user = await signed_in(servers[0], "damaged")
    async with AsyncMongoClient[dict[str, Any]](mongod.uri) as client:
        await client[database]["sessions"].update_one({"_id": user.session_id}, {"$set": {"schema": 99}})
    async with user.client(servers[1]) as stranger:
        assert (await stranger.get("/me")).status_code == 401


async def _slow_provider(server: SampleServer, provider: ScriptedProvider) -> None:
    """A check that takes long."""
    provider.script("discovery", Answer(delay=0.4))
    calls = len(provider.calls("discovery"))
    async with httpx.AsyncClient(base_url=server.url, trust_env=False) as prober:
        while len(provider.calls("discovery")) == calls:
            await prober.get("/health")
            await asyncio.sleep(0.2)


async def _refreshes(provider: ScriptedProvider) -> None:
    """A slow one, one that fails for now, one whose answer is lost, and so the end of a grant."""
    # By account: health checks ask the token endpoint, too.
    provider.script_refresh("user1", Answer(delay=0.3))
    provider.script_refresh("user2", Answer(status=503))
    provider.script_refresh("user3", Answer(spends=True, delivery="cut"))
    wanted = {f"user{number}": len(provider.refreshes(f"user{number}")) + 2 for number in range(1, STREAMS)}
    async with asyncio.timeout(40):
        while any(len(provider.refreshes(account)) < count for account, count in wanted.items()):  # noqa: ASYNC110
            await asyncio.sleep(0.1)
