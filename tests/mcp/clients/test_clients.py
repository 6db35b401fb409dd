"""Real clients, each by the whole OAuth way, with tokens that live four seconds: nobody notices."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from tests.mcp.clients.deployment import HTTP_SSE, KINDS, complaints, deployed
from tests.parts import mongod as mongo
from tests.parts import provider as oidc
from tests.parts.fastmcp_environment import find_fastmcp
from tests.parts.node import find_packages
from tests.parts.provider import Provider
from tests.parts.require import require

SECONDS = 30.0
REVISIONS = {
    "Python SDK, 2026-07-28": "2026-07-28",
    "Python SDK, 2025-11-25": "2025-11-25",
    "TypeScript SDK 1": "2025-11-25",
    "TypeScript SDK 2": "2026-07-28",
    "FastMCP": "2026-07-28",
    "mcp-remote": "2025-11-25",
    HTTP_SSE: "2025-11-25",  # the transport of 2024-11-05, over which the SDK speaks its newest handshake
}


@pytest.fixture
def hasty_provider() -> Iterator[Provider]:
    """Its access tokens live six seconds, and it ends the grant of a refresh token that comes twice."""
    require(oidc.check_available)
    with oidc.running(access_ttl=6) as provider:
        yield provider


@pytest.mark.real("mcp clients")
async def test_half_a_minute_of_every_client(
    mongod: mongo.ReplicaSet | mongo.ExternalMongo, hasty_provider: Provider
) -> None:
    """Three calls at a time of seven clients, spread over two processes that share nothing but MongoDB, and of one over
    HTTP+SSE, whose stream outlives the token with which it was opened: no call fails, each user is asked once, and the
    provider sees no token twice."""
    require(find_packages)
    require(find_fastmcp)
    async with (
        deployed(hasty_provider, mongod.uri, processes=2) as two,
        deployed(hasty_provider, mongod.uri, processes=1) as one,
    ):
        spread, oldest = await asyncio.gather(two.work(KINDS, SECONDS), one.work([HTTP_SSE], SECONDS))
        outcomes = spread | oldest
        assert [text for name, outcome in outcomes.items() for text in complaints(name, outcome, SECONDS)] == []
        for name, outcome in outcomes.items():
            assert outcome.version in (None, REVISIONS.get(name)), name
        stats = await hasty_provider.stats()
        assert stats.errors == {}
        assert stats.reuses == {}
        assert stats.grants_revoked == 0
        assert len(stats.refreshes) == len(outcomes)
        assert min(stats.refreshes.values()) >= 2
        assert len(two.balancer.connections) == 2
        assert all("Traceback" not in server.output for server in [*two.servers, *one.servers])
