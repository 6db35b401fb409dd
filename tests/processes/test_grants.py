"""The refresh tokens of MCP clients, over several server processes."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import httpx
from pymongo import AsyncMongoClient

from tests.mcp.clients.deployment import Deployment, deployed
from tests.mcp.clients.python_sdk import SignIn, connected
from tests.mcp.clients.work import Order
from tests.mcp.serving import Client
from tests.parts import provider as oidc
from tests.parts.mongod import ExternalMongo, ReplicaSet
from tornado_sse_auth.sessions.grant_changes import GRACE

PROCESSES = 4
CALLS = 50


class Installation:
    """A client after its sign-in. Every call is a connection of its own, and so lands in the next process."""

    def __init__(self, deployment: Deployment, client_id: str, tokens: dict[str, Any]) -> None:
        self.tokens = tokens
        self._url = deployment.url
        self._client_id = client_id

    async def refresh(self, token: str) -> dict[str, Any]:
        """The answer to one refresh token."""
        fields = {"grant_type": "refresh_token", "refresh_token": token, "client_id": self._client_id}
        async with httpx.AsyncClient(trust_env=False, timeout=30) as http:
            answer: dict[str, Any] = (await http.post(f"{self._url}/oauth/token", data=fields)).json()
        return answer

    async def use(self, token: str) -> int:
        """The status of a call with an access token, in each process in turn."""
        found = set()
        for _ in range(PROCESSES):
            client = Client(self._url, token)
            found.add((await client.call("tools/list")).status_code)
            await client.http.aclose()
        assert len(found) == 1
        return found.pop()


async def installed(deployment: Deployment, account: str) -> Installation:
    """By the SDK's own client."""
    order = Order(deployment.url, deployment.provider.issuer, account, 0.0)
    sign_in = SignIn(order, "four processes")
    async with connected(order, sign_in, "auto"):
        pass
    tokens, client = sign_in.storage.tokens, sign_in.storage.client
    assert tokens is not None
    assert client is not None
    assert client.client_id is not None
    return Installation(deployment, client.client_id, tokens.model_dump())


async def test_one_refresh_token_fifty_times_over_four_processes(
    mongod: ReplicaSet | ExternalMongo, provider: oidc.Provider, account: str
) -> None:
    """SEC-40: in the grace all get the same successor and one access token lives; after it the family ends, and its
    streams with it, in every process."""
    async with deployed(provider, mongod.uri, processes=PROCESSES, access_token_ttl=600) as deployment:
        client = await installed(deployment, account)
        spent = client.tokens["refresh_token"]
        before = Counter(deployment.balancer.connections)
        answers = await asyncio.gather(*(client.refresh(spent) for _ in range(CALLS)))
        landed = deployment.balancer.connections - before
        assert len(landed) == PROCESSES
        assert sum(landed.values()) == CALLS
        assert {answer.get("error") for answer in answers} == {None}
        assert len({(answer["refresh_token"], answer["access_token"]) for answer in answers}) == 1
        current = answers[0]
        assert current["refresh_token"] != spent
        assert await client.use(current["access_token"]) == 200

        listening = [Client(deployment.url, current["access_token"]) for _ in range(PROCESSES)]
        async with asyncio.TaskGroup() as streams:
            opened = asyncio.Barrier(PROCESSES + 1)
            for one in listening:
                streams.create_task(until_the_end(one, opened))
            await opened.wait()
            await let_pass(mongod.uri, deployment.database, GRACE + 1)
            assert (await client.refresh(spent))["error"] == "invalid_grant"
        assert (await client.refresh(current["refresh_token"]))["error"] == "invalid_grant"
        assert await client.use(current["access_token"]) == 401


async def until_the_end(client: Client, opened: asyncio.Barrier) -> None:
    """Listen for changes until the server ends the stream."""
    async with client.listen(resourcesListChanged=True) as stream:
        assert await stream.next() is not None
        await opened.wait()
        assert [message.get("id") for message in await stream.rest()] == ["listen-1"]
    await client.http.aclose()


async def let_pass(uri: str, database: str, seconds: float) -> None:
    """Running processes cannot be told another time, so what was spent is made older where they read it."""
    async with AsyncMongoClient(uri) as mongo:
        change = {"$inc": {"grants.$[].spent.$[].spent_at": -seconds}}
        changed = await mongo[database]["sessions"].update_many({"grants.spent.0": {"$exists": True}}, change)
    assert changed.modified_count == 1
