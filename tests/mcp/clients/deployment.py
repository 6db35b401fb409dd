"""The sample server in several processes behind a load balancer, and every kind of client at work on it."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from tests.mcp.clients import programs, python_sdk
from tests.mcp.clients.work import Order, Outcome
from tests.parts.process import free_port
from tests.parts.provider import Provider
from tests.parts.round_robin import RoundRobin, round_robin
from tests.parts.sample_server import SampleServer, sample_servers

ACCESS_TOKEN_TTL = 4  # seconds, of our tokens
KINDS: Mapping[str, Callable[[Order], Awaitable[Outcome]]] = {
    "Python SDK, 2026-07-28": python_sdk.modern,
    "Python SDK, 2025-11-25": python_sdk.legacy,
    "TypeScript SDK 1": programs.typescript_v1,
    "TypeScript SDK 2": programs.typescript_v2,
    "FastMCP": programs.fastmcp,
    "inspector": programs.inspector,
    "mcp-remote": programs.mcp_remote,
}
HTTP_SSE = "Python SDK, HTTP+SSE"  # of one process: a message must reach the one that has the stream


@dataclass(frozen=True)
class Deployment:
    """What runs. `url` is the public one."""

    balancer: RoundRobin
    servers: list[SampleServer]
    provider: Provider
    database: str

    @property
    def url(self) -> str:
        """Where clients reach it."""
        return self.balancer.url

    async def work(self, kinds: Iterable[str], seconds: float) -> dict[str, Outcome]:
        """All of these clients at the same time, each with a user of its own."""
        names = list(kinds)
        orders = [
            Order(
                self.url,
                self.provider.issuer,
                f"user-{secrets.token_hex(4)}",
                seconds,
                "/sse" if name == HTTP_SSE else "/mcp",
            )
            for name in names
        ]
        clients = {**KINDS, HTTP_SSE: python_sdk.sse}
        outcomes = await asyncio.gather(*(clients[name](order) for name, order in zip(names, orders, strict=True)))
        return dict(zip(names, outcomes, strict=True))


@asynccontextmanager
async def deployed(
    provider: Provider, mongodb_uri: str, *, processes: int, access_token_ttl: int = ACCESS_TOKEN_TTL
) -> AsyncIterator[Deployment]:
    """Servers that share a database, and look like one to clients."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    options = (f"--public-url={url}", f"--access-token-ttl={access_token_ttl}")
    await provider.add_redirect_uri(f"{url}/auth/callback")
    database = f"clients_{secrets.token_hex(4)}"
    async with (
        sample_servers(provider, [mongodb_uri] * processes, database, *options) as servers,
        round_robin([server.port for server in servers], port=port) as balancer,
    ):
        yield Deployment(balancer, servers, provider, database)


def complaints(name: str, outcome: Outcome, seconds: float) -> list[str]:
    """What must not be of one client's work: a call that failed, a user asked twice, a client that hung."""
    found = []
    if outcome.failures:
        found.append(f"{name}: {len(outcome.failures)} of {outcome.calls} calls failed: {outcome.failures[:3]}")
    if outcome.sign_ins != 1:
        found.append(f"{name}: {outcome.sign_ins} sign-ins")
    if outcome.calls < seconds:
        found.append(f"{name}: {outcome.calls} calls in {seconds:g} s")
    return found
