"""MCP for clients whose authorization server is somebody else's: no store knows them, and `exp` is the end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from mcp.server.mcpserver import MCPServer

from tests.mcp.serving import Client, Running, named, serving
from tests.mcp.test_sessions import Legacy
from tests.parts.process import free_port
from tests.parts.token_issuer import TokenIssuer
from tornado_sse_auth import (
    JWTBearerVerifier,
    MemorySessionStore,
    Session,
    SSEAuthenticationMiddleware,
    StoreUnavailableError,
)
from tornado_sse_auth.mcp import current_user, requires

SECONDS = 3.0


class Silent(MemorySessionStore):
    """A store that answers no question about sessions."""

    async def find_by_credential(self, digest: bytes) -> Session | None:
        raise StoreUnavailableError(reason="asked", retry_after=2.0)

    async def find(self, session_id: str) -> Session | None:
        raise StoreUnavailableError(reason="asked", retry_after=2.0)


def build(auth: SSEAuthenticationMiddleware) -> MCPServer[Any]:
    server = named(auth)

    @server.tool()
    async def whoami() -> str:
        return current_user().user_id

    @server.tool(meta=requires(scopes={"content:read"}))
    async def scoped() -> str:
        return "in"

    return server


@asynccontextmanager
async def taking() -> AsyncIterator[tuple[Running, TokenIssuer]]:
    """An MCP server that takes the tokens of another's authorization server, for both of its resources."""
    async with TokenIssuer() as issuer:
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        verifier = JWTBearerVerifier(issuer=issuer.issuer, audience=[f"{url}/mcp", f"{url}/sse"])
        async with serving(build, store=Silent(), port=port, bearer_verifiers=[verifier]) as running:
            yield running, issuer


def client(running: Running, issuer: TokenIssuer, path: str = "/mcp", **claims: Any) -> Client:
    """A client with a token for one of the resources."""
    return running.client(issuer.access_token(audience=f"{running.url}{path}", **claims))


async def test_calls_need_no_store() -> None:
    """Both eras; the session of the older one belongs to user and client (SEC-52), as the token names them."""
    async with taking() as (running, issuer):
        metadata = (await running.client(None).http.get("/.well-known/oauth-protected-resource")).json()
        assert metadata["authorization_servers"] == [issuer.issuer]
        alice = client(running, issuer)
        answer = await alice.tool("whoami")
        assert answer.json()["result"]["content"][0]["text"] == f"{issuer.issuer}|alice"
        lacking = await alice.tool("scoped")
        assert lacking.status_code == 403
        assert 'scope="content:read"' in lacking.headers["WWW-Authenticate"]
        assert (await client(running, issuer, scope="content:read").tool("scoped")).status_code == 200
        assert (await client(running, issuer, "/sse").tool("whoami")).status_code == 401
        session = await Legacy.connect(alice)
        assert (await session.call("whoami")).status_code == 200
        for other in ({"sub": "bob"}, {"client_id": "another assistant"}):
            assert (await session.at(client(running, issuer, **other)).call("whoami")).status_code == 404
        assert (await session.at(client(running, issuer, jti="renewed")).call("whoami")).status_code == 200


async def test_streams_end_with_their_token() -> None:
    """G1, SEC-49: at `exp`, not at the next request: a listen stream with its result, the others without a word."""
    async with taking() as (running, issuer), AsyncExitStack() as stack:
        ends = time.time() + SECONDS
        alice = client(running, issuer, exp=ends)
        listen = await stack.enter_async_context(alice.listen(toolsListChanged=True))
        assert await listen.next() is not None
        session = await Legacy.connect(alice)
        standing = await stack.enter_async_context(session.get())
        sse_client = client(running, issuer, "/sse", exp=ends)
        sse = await stack.enter_async_context(sse_client.stream(method="GET", url="/sse"))
        assert (standing.response.status_code, sse.response.status_code) == (200, 200)
        assert len(running.auth.registry) == 3
        async with asyncio.timeout(SECONDS + 10):
            assert [message.get("id") for message in await listen.rest()] == ["listen-1"]
            assert await standing.rest() == []
            assert [line async for line in sse.lines if line.startswith("event:")] == ["event: endpoint"]
        assert time.time() >= ends
        assert running.metrics.counters["stream.closed.session_expired"] == 3
        # The session outlives the token: a new one goes on with it.
        assert (await session.at(client(running, issuer)).call("whoami")).status_code == 200


@pytest.mark.parametrize(("method", "path"), [("POST", "/mcp"), ("GET", "/sse"), ("POST", "/messages")])
async def test_who_needs_the_store_is_told_to_wait(method: str, path: str) -> None:
    """A bearer of ours while the store is away: 503, never 401, or every client would sign in again."""
    async with serving(build, store=Silent()) as running:
        ours = running.client("A" * 43)
        request = ours.modern("tools/list") | {"method": method, "url": path}
        answer = await ours.http.request(**request)
        assert answer.status_code == 503
        assert int(answer.headers["Retry-After"]) >= 1
        body = answer.json()
        error = body["error"]["data"] if method == "POST" else body
        assert error["error"] == "store_unavailable"
