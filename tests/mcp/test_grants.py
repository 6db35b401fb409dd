"""What installations of clients hold open, and what ends it: grants, not access tokens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from mcp.server.mcpserver import MCPServer
from mcp.server.subscriptions import ResourceUpdated

from tests.authorization_server.kit import SCOPES, Installation, World
from tests.mcp.legacy import Legacy
from tests.mcp.serving import Client, MessageStreamReader, named
from tests.scenarios.server import serve
from tornado_sse_auth import MemorySessionStore, Secret, SSEAuthenticationMiddleware
from tornado_sse_auth.authorization_server import AuthorizationServer
from tornado_sse_auth.mcp import EventLogBus, MCPEndpoint, requires
from tornado_sse_auth.testing import ManualClock

HOUR = 3600.0
TOKENS = 100


def build(auth: SSEAuthenticationMiddleware) -> MCPServer[Any]:
    server = named(auth)

    @server.tool(meta=requires(scopes={"content:read", "events:write"}))
    async def both() -> str:
        return "in"

    @server.resource("content://{slug}")
    async def content(slug: str) -> str:
        return slug

    return server


@asynccontextmanager
async def granting(**options: Any) -> AsyncIterator[World]:
    """An MCP server with an authorization server, whose time the test moves."""
    clock = ManualClock()

    def rules(auth: SSEAuthenticationMiddleware) -> list[Any]:
        # First, so that it knows which resources there are.
        server = AuthorizationServer(auth, scopes=SCOPES)
        return [*MCPEndpoint(build(auth), auth=auth).routes(), *server.routes()]

    async with AsyncExitStack() as stack:
        app = await stack.enter_async_context(
            serve(MemorySessionStore(clock=clock), rules=rules, clock=clock, **options)
        )
        world = World(app, await stack.enter_async_context(app.client()))
        yield world
        for browser in world.browsers:
            await browser.http.aclose()


def using(installation: Installation, stack: AsyncExitStack) -> Client:
    """An MCP client with the installation's newest access token."""
    client = Client(installation.world.app.url, installation.tokens["access_token"])
    stack.push_async_callback(client.http.aclose)
    return client


async def told(world: World, stream: MessageStreamReader, uri: str) -> None:
    """A change reaches the stream."""
    await EventLogBus(world.auth.events).publish(ResourceUpdated(uri=uri))
    message = await stream.next()
    assert message is not None
    assert message["params"]["uri"] == uri


async def test_a_listen_stream_lives_for_an_hour_over_a_hundred_access_tokens() -> None:
    """The tokens that come and go open requests; the grant carries the stream."""
    async with granting(access_token_ttl=HOUR / TOKENS, heartbeat=HOUR) as world, AsyncExitStack() as stack:
        installation = await world.installation()
        first = using(installation, stack)
        stream = await stack.enter_async_context(first.listen(resourceSubscriptions=["content://a"]))
        acknowledged = await stream.next()
        assert acknowledged is not None
        tokens = {installation.tokens["access_token"]}
        for number in range(TOKENS):
            world.clock.advance(HOUR / TOKENS)
            assert (await installation.refresh()).status_code == 200
            tokens.add(installation.tokens["access_token"])
            if number % 10 == 9:
                assert (await using(installation, stack).call("tools/list")).status_code == 200
                await told(world, stream, "content://a")
        assert len(tokens) == TOKENS + 1
        assert (await first.call("tools/list")).status_code == 401
        await told(world, stream, "content://a")
        assert world.app.metrics.counters["stream.opened"] == 1
        assert sum(count for name, count in world.app.metrics.counters.items() if "stream.closed" in name) == 0


@pytest.mark.parametrize("how", ["revoked by the client", "ended by the user"])
async def test_a_grant_ends_with_its_streams_and_no_other_does(how: str) -> None:
    """SEC-46, SEC-49, G1: two installations of one client, of one user, in one session; both eras, both transports."""
    async with granting() as world, AsyncExitStack() as stack:
        browser = await world.signed_in()
        gone, stays = [await world.installation(browser) for _ in range(2)]
        assert gone.client_id == stays.client_id
        streams: dict[str, list[MessageStreamReader]] = {"gone": [], "stays": []}
        for name, installation in (("gone", gone), ("stays", stays)):
            client = using(installation, stack)
            listen = await stack.enter_async_context(client.listen(resourceSubscriptions=["content://a"]))
            assert (await listen.next()) is not None
            legacy = await Legacy.connect(client)
            standing = await stack.enter_async_context(legacy.get())
            assert standing.response.status_code == 200
            sse = await stack.enter_async_context(client.stream(method="GET", url="/sse"))
            assert sse.response.status_code == 200
            streams[name] = [listen, standing, sse]
        assert len(world.auth.registry) == 6
        if how == "revoked by the client":
            assert (await gone.call("/oauth/revoke", token=gone.tokens["refresh_token"])).status_code == 200
        else:
            listed = (await browser.http.get("/auth/sessions")).json()["sessions"][0]
            assert len(listed["grants"]) == 2
            session = await world.session(listed["id"])
            credential = session.credential(Secret(gone.tokens["access_token"]).digest())
            assert credential is not None
            path = f"/auth/sessions/{session.id}/grants/{credential.grant}"
            ended = await browser.http.delete(path, headers={"Origin": world.url})
            assert ended.status_code == 204
        async with asyncio.timeout(1.0 + 4.0):  # a second, and what a slow machine adds
            last = await streams["gone"][0].rest()
            assert [message.get("id") for message in last] == ["listen-1"]
            assert await streams["gone"][1].rest() == []
            # Nothing but where to post: an event of ours would be no message of the protocol.
            lines = [line async for line in streams["gone"][2].lines if line.startswith("event:")]
            assert lines == ["event: endpoint"]
        assert (await using(gone, stack).call("tools/list")).status_code == 401
        assert len(world.auth.registry) == 3
        await told(world, streams["stays"][0], "content://a")
        assert (await using(stays, stack).call("tools/list")).status_code == 200


async def test_one_challenge_says_all_that_is_needed() -> None:
    """G2, G4, RFC 9728: without a token all scopes and no error code; with one that is too narrow all that lack."""
    async with granting() as world, AsyncExitStack() as stack:
        for path in ("/mcp", "/sse"):
            answer = await world.http.get(path)
            challenge = answer.headers["WWW-Authenticate"]
            assert answer.status_code == 401
            assert "error=" not in challenge
            assert 'scope="content:read events:write"' in challenge
            metadata_url = f"{world.url}/.well-known/oauth-protected-resource{path}"
            assert f'resource_metadata="{metadata_url}"' in challenge
            metadata = (await world.http.get(metadata_url)).json()
            assert metadata["resource"] == f"{world.url}{path}"
            assert metadata["authorization_servers"] == [world.url]
        assert (await world.http.get("/.well-known/oauth-protected-resource")).json()["resource"] == f"{world.url}/mcp"
        narrow = Installation(world, scope="content:read")
        await narrow.register()
        await narrow.connect(await world.signed_in())
        refused = await using(narrow, stack).tool("both")
        assert refused.status_code == 403
        assert 'error="insufficient_scope"' in refused.headers["WWW-Authenticate"]
        assert 'scope="content:read events:write"' in refused.headers["WWW-Authenticate"]


async def test_a_token_for_one_resource_opens_no_other() -> None:
    """G3, SEC-16: always checked, there is no switch."""
    async with granting() as world, AsyncExitStack() as stack:
        for path, other in (("/mcp", "/sse"), ("/sse", "/mcp")):
            installation = Installation(world, resource=f"{world.url}{path}")
            await installation.register()
            await installation.connect(await world.signed_in())
            client = using(installation, stack)
            for there, status in ((other, 401), ("/messages", 401 if path == "/mcp" else 400), ("/me", 401)):
                method = "POST" if there != "/me" else "GET"
                answer = await client.http.request(method, there, json={})
                assert answer.status_code == (status if there != "/sse" else 401), (path, there)
                if answer.status_code == 401:
                    assert 'error="invalid_token"' in answer.headers["WWW-Authenticate"]
