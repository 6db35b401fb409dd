"""`/mcp` in 2026-07-28: one POST is all there is, and closing it cancels."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any

import pytest
from mcp.server.auth.middleware.auth_context import get_access_token
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.subscriptions import ResourceUpdated, ToolsListChanged

from tests.mcp.serving import Running, named, serving, until
from tornado_sse_auth import ConfigurationError, Secret, SSEAuthenticationMiddleware
from tornado_sse_auth.identity import SessionState
from tornado_sse_auth.mcp import EventLogBus, current_user, requires


class Fixture:
    """A server with one tool of each kind, and what became of their calls."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.gate = asyncio.Event()
        self.entered = 0
        self.entered_by = "nobody"

    def build(self, auth: SSEAuthenticationMiddleware) -> MCPServer[Any]:
        @asynccontextmanager
        async def lifespan(_: Any) -> AsyncIterator[dict[str, int]]:
            self.entered += 1
            with suppress(ConfigurationError):
                self.entered_by = current_user().user_id
            if (caller := get_access_token()) is not None:
                self.entered_by = str(caller.subject)
            yield {"entered": self.entered}
            self.log.append("left")

        server = named(auth, lifespan=lifespan)

        @server.tool()
        async def whoami(ctx: Context[Any, Any]) -> str:
            state = ctx.request_context.lifespan_context
            return f"{current_user().user_id} {state['entered']}"

        @server.tool()
        async def steps(ctx: Context[Any, Any], count: int) -> str:
            for step in range(count):
                await ctx.report_progress(step, count)
            return "done"

        @server.tool()
        async def wait(ctx: Context[Any, Any], speak: bool = False) -> str:
            self.log.append("waits")
            try:
                if speak:
                    await ctx.report_progress(0, 1)
                await self.gate.wait()
            except asyncio.CancelledError:
                self.log.append("cancelled")
                raise
            return "went on"

        @server.resource("content://{slug}", meta=requires(subscription="pro"))
        def content(slug: str) -> str:
            return slug

        return server


@pytest.fixture
def fixture() -> Fixture:
    return Fixture()


@pytest.fixture
async def running(fixture: Fixture) -> AsyncIterator[Running]:
    async with serving(fixture.build) as running:
        yield running


async def test_a_call_is_one_request(running: Running, fixture: Fixture) -> None:
    """T21, T28: JSON where nothing comes before the result, a stream where something does; results say what they are.
    The lifespan is entered once, in nobody's name (SEC-03): what it starts runs on when the first caller has gone."""
    _, ann = await running.sign_in("ann")
    _, bob = await running.sign_in("bob")
    told = [(await client.tool("whoami")).json()["result"] for client in (ann, bob, ann)]
    assert [result["content"][0]["text"] for result in told] == ["ann 1", "bob 1", "ann 1"]
    assert fixture.entered_by == "nobody"
    assert told[0]["resultType"] == "complete"
    discovered = await ann.call("server/discover")
    assert discovered.json()["result"]["supportedVersions"] == ["2026-07-28"]
    assert discovered.json()["result"]["cacheScope"] == "private"

    request = ann.modern("tools/call", {"name": "steps", "arguments": {"count": 2}}, progressToken="p")
    async with ann.stream(**request) as stream:
        assert stream.response.headers["X-Accel-Buffering"] == "no"
        messages = await stream.rest()
    assert [message.get("method") for message in messages] == ["notifications/progress"] * 2 + [None]
    assert messages[-1]["result"]["content"][0]["text"] == "done"
    assert len(running.auth.registry) == 0


async def test_headers_must_agree_with_the_body(running: Running) -> None:
    """T21, T24, T26, T27, T29: what routes a request must be what it says."""
    _, ann = await running.sign_in()

    async def post(change: dict[str, Any] | None = None, body: Any = None, **headers: str | None) -> tuple[int, int]:
        request = ann.modern("tools/call", {"name": "whoami"})
        request["json"] = body if body is not None else request["json"] | (change or {})
        for name, value in headers.items():
            request["headers"].pop(name.replace("_", "-"), None)
            if value is not None:
                request["headers"][name.replace("_", "-")] = value
        answer = await ann.http.request(**request)
        return answer.status_code, answer.json()["error"]["code"]

    assert await post(Mcp_Method="tools/list") == (400, -32020)
    assert await post(Mcp_Method=None) == (400, -32020)
    assert await post(Mcp_Name="Whoami") == (400, -32020)
    assert await post(Mcp_Name="=?base64?bm9wZQ==?=") == (400, -32020)
    assert await post(MCP_Protocol_Version="2027-01-01") == (400, -32020)
    future = {"_meta": {"io.modelcontextprotocol/protocolVersion": "2027-01-01"}}
    future["_meta"]["io.modelcontextprotocol/clientCapabilities"] = {}  # type: ignore[assignment]
    unsupported = await post({"params": {**future, "name": "whoami"}}, MCP_Protocol_Version="2027-01-01")
    assert unsupported == (400, -32022)
    assert await post({"params": {"name": "whoami"}}) == (400, -32602)
    assert await post({"method": "no/such"}, Mcp_Method="no/such") == (404, -32601)
    assert await post({"id": 1.5}) == (400, -32600)
    assert await post(body=[]) == (400, -32600)
    assert await post(body={"jsonrpc": "2.0", "id": 1, "result": {}}) == (400, -32600)
    for method in ("GET", "DELETE"):
        answer = await ann.http.request(method, "/mcp", headers={"MCP-Protocol-Version": "2026-07-28"})
        assert answer.status_code == 405
    encoded = ann.modern("tools/call", {"name": "whoami"})
    encoded["headers"]["Mcp-Name"] = "=?base64?d2hvYW1p?="
    assert (await ann.http.request(**encoded)).status_code == 200
    told = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}}
    answer = await ann.http.post("/mcp", json=told, headers={"MCP-Protocol-Version": "2026-07-28"})
    assert (answer.status_code, answer.content) == (202, b"")


@pytest.mark.parametrize("speak", [False, True])
async def test_a_client_that_goes_cancels(running: Running, fixture: Fixture, speak: bool) -> None:
    """T23: whether or not anything was sent before; and nothing is left of it."""
    _, ann = await running.sign_in()
    request = ann.modern("tools/call", {"name": "wait", "arguments": {"speak": speak}}, progressToken=1)
    task = asyncio.create_task(ann.http.request(**request))
    await until(lambda: "waits" in fixture.log)
    await until(lambda: len(running.auth.registry) == speak)
    task.cancel()
    await asyncio.wait([task])
    await until(lambda: "cancelled" in fixture.log)
    await until(lambda: len(running.auth.registry) == running.auth.registry.leaving == 0)


async def test_a_silent_call_becomes_a_stream(fixture: Fixture) -> None:
    """T22: a proxy would cut it otherwise; and as a stream it ends with its session, saying so in JSON-RPC."""
    async with serving(fixture.build, heartbeat=0.05) as running:
        session, ann = await running.sign_in()
        async with ann.stream(**ann.modern("tools/call", {"name": "wait", "arguments": {}})) as stream:
            assert len(running.auth.registry) == 1
            fixture.gate.set()
            (message,) = await stream.rest()
            assert message["result"]["content"][0]["text"] == "went on"
        fixture.gate.clear()
        async with ann.stream(**ann.modern("tools/call", {"name": "wait", "arguments": {}})) as stream:
            await running.auth.sessions.revoke(session.id)
            (message,) = await stream.rest()
        assert message["error"]["code"] == -32010
        await until(lambda: "cancelled" in fixture.log)


async def test_listening(running: Running) -> None:
    """T30: acknowledged first, told only what was asked for, each message with the subscription's id; when the server
    ends it, the result is the last message. Nothing of our own stands on the stream."""
    session, ann = await running.sign_in("ann", subscription="pro")
    _, bob = await running.sign_in("bob")
    bus = EventLogBus(running.auth.events)
    uris = ["content://a", "content://b"]
    async with (
        ann.listen("a", toolsListChanged=True, resourceSubscriptions=uris) as anns,
        bob.listen(7, promptsListChanged=True, resourceSubscriptions=uris) as bobs,
    ):
        acknowledged = await anns.next()
        assert acknowledged is not None
        assert acknowledged["method"] == "notifications/subscriptions/acknowledged"
        assert acknowledged["params"]["notifications"] == {"toolsListChanged": True, "resourceSubscriptions": uris}
        acknowledged = await bobs.next()
        assert acknowledged is not None
        assert acknowledged["params"]["notifications"] == {"promptsListChanged": True}  # he may not read those
        await bus.publish(ResourceUpdated(uri="content://c"))
        await bus.publish(ResourceUpdated(uri="content://b"))
        await bus.publish(ToolsListChanged())
        told = [await anns.next(), await anns.next()]
        assert [message["method"] for message in told if message] == [
            "notifications/resources/updated",
            "notifications/tools/list_changed",
        ]
        assert told[0] is not None
        assert told[0]["params"]["uri"] == "content://b"
        assert all(
            message["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"] == "a" for message in told if message
        )
        await running.auth.sessions.revoke(session.id)
        (last,) = await anns.rest()
        assert last["id"] == "a"
        assert last["result"]["resultType"] == "complete"
        assert set(anns.events) == {"message"}
        assert len(running.endpoint.hosted.listening) == 1
    await until(lambda: len(running.endpoint.hosted.listening) == len(running.auth.registry) == 0)


async def test_a_stream_ends_at_once_with_what_it_needs(running: Running) -> None:
    """The subscription level that a listen stream's resources need is lost; another session needs its user."""
    paying, ann = await running.sign_in("ann", subscription="pro")
    needing, bob = await running.sign_in("bob")
    async with ann.listen(resourceSubscriptions=["content://a"]) as anns, bob.listen(toolsListChanged=True) as bobs:
        await anns.next()
        await bobs.next()
        await running.auth.sessions.update(paying.id, lambda stored: replace(stored, subscription="free"))
        (last,) = await anns.rest()
        assert "result" in last
        await running.auth.sessions.update(
            needing.id,
            lambda stored: replace(stored, state=SessionState.REAUTHORIZATION, reauth=Secret.random()),
        )
        (last,) = await bobs.rest()
        assert "result" in last
        refused = await bob.tool("whoami")
        assert refused.status_code == 401
        assert 'error="invalid_token"' in refused.headers["WWW-Authenticate"]


async def test_too_many_streams_and_shutdown(fixture: Fixture) -> None:
    """The limits of all streams hold for these; a process that drains ends them with their result and leaves the
    server's lifespan."""
    async with serving(fixture.build, max_streams_per_user=1) as running:
        _, ann = await running.sign_in()
        async with ann.listen(toolsListChanged=True) as stream:
            await stream.next()
            refused = await ann.http.request(**ann.modern("subscriptions/listen", {"notifications": {}}))
            assert refused.status_code == 429
            assert refused.json()["error"]["data"]["error"] == "too_many_streams"
            request = ann.modern("tools/call", {"name": "steps", "arguments": {"count": 1}}, progressToken=1)
            answer = await ann.http.request(**request)
            assert answer.headers["Content-Type"] == "application/json"  # the result all the same
            assert "left" not in fixture.log
            await running.auth.close()
            (last,) = await stream.rest()
            assert "result" in last
        assert "left" in fixture.log
