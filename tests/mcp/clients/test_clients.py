"""Real clients, each by the whole OAuth way, with tokens that live four seconds: nobody notices."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.mcp.clients.deployment import FOR_MCP_REMOTE_TTL, HTTP_SSE, KINDS, MCP_REMOTE, complaints, deployed
from tests.mcp.clients.work import Outcome
from tests.parts import mongod as mongo
from tests.parts import provider as oidc
from tests.parts.fastmcp_environment import find_fastmcp
from tests.parts.node import find_packages
from tests.parts.provider import Provider
from tests.parts.require import require

SECONDS = 9.0  # two of our tokens, and of the provider's
REVISIONS = {
    "Python SDK, 2026-07-28": "2026-07-28",
    "Python SDK, 2025-11-25": "2025-11-25",
    "TypeScript SDK 1": "2025-11-25",
    "TypeScript SDK 2": "2026-07-28",
    "FastMCP": "2026-07-28",
    MCP_REMOTE: "2025-11-25",
    HTTP_SSE: "2025-11-25",  # the transport of 2024-11-05, over which the SDK speaks its newest handshake
}


@pytest.fixture
def hasty_provider() -> Iterator[Provider]:
    """Its access tokens live six seconds, and it ends the grant of a refresh token that comes twice."""
    require(oidc.check_available)
    with oidc.running(access_ttl=6) as provider:
        yield provider


async def judge(provider: Provider, outcomes: dict[str, Outcome]) -> None:
    """No call failed, each user was asked once, and the provider saw no token twice."""
    assert [text for name, outcome in outcomes.items() for text in complaints(name, outcome, SECONDS)] == []
    for name, outcome in outcomes.items():
        assert outcome.version in (None, REVISIONS.get(name)), name
    stats = await provider.stats()
    assert stats.errors == {}
    assert stats.reuses == {}
    assert stats.grants_revoked == 0
    assert len(stats.refreshes) == len(outcomes)
    assert min(stats.refreshes.values()) >= 1


@pytest.mark.real("mcp clients")
async def test_two_processes_and_every_client(
    mongod: mongo.ReplicaSet | mongo.ExternalMongo, hasty_provider: Provider
) -> None:
    """Three calls at a time of six clients, spread over two processes that share nothing but MongoDB."""
    require(find_packages)
    require(find_fastmcp)
    async with deployed(hasty_provider, mongod.uri, processes=2) as deployment:
        outcomes = await deployment.work(KINDS, SECONDS)
        await judge(hasty_provider, outcomes)
        assert len(deployment.balancer.connections) == 2
        assert all("Traceback" not in server.output for server in deployment.servers)


async def test_two_processes_and_mcp_remote(
    mongod: mongo.ReplicaSet | mongo.ExternalMongo, hasty_provider: Provider
) -> None:
    """The bridge for programs that speak no HTTP, which renews its tokens long before they end."""
    require(find_packages)
    async with deployed(hasty_provider, mongod.uri, processes=2, access_token_ttl=FOR_MCP_REMOTE_TTL) as deployment:
        await judge(hasty_provider, await deployment.work([MCP_REMOTE], SECONDS))


async def test_one_process_and_the_oldest_transport(
    mongod: mongo.ReplicaSet | mongo.ExternalMongo, hasty_provider: Provider
) -> None:
    """HTTP+SSE: the stream outlives the token with which it was opened."""
    async with deployed(hasty_provider, mongod.uri, processes=1) as deployment:
        await judge(hasty_provider, await deployment.work([HTTP_SSE], SECONDS))
