"""`/sse` and `/messages`: the transport of 2024-11-05."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from mcp import ClientSession
from mcp.client.sse import sse_client
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.subscriptions import ResourceUpdated
from mcp.shared.exceptions import MCPError
from mcp_types import ElicitRequestParams, ElicitResult
from pydantic import BaseModel

from tests.mcp.serving import Client, endpoint_of, named, serving, until
from tornado_sse_auth import SSEAuthenticationMiddleware
from tornado_sse_auth.mcp import EventLogBus, current_user, requires

pytestmark = pytest.mark.filterwarnings("ignore::mcp.shared.exceptions.MCPDeprecationWarning")


class Answer(BaseModel):
    """What the user is asked."""

    word: str


class Fixture:
    """The server's tools, and what became of their calls."""

    def __init__(self) -> None:
        self.log: list[str] = []

    def build(self, auth: SSEAuthenticationMiddleware) -> MCPServer[Any]:
        server = named(auth)

        @server.tool()
        async def whoami(ctx: Context[Any, Any]) -> str:
            await ctx.report_progress(1, 1)
            return current_user().user_id

        @server.tool()
        async def ask(ctx: Context[Any, Any]) -> str:
            answer = await ctx.elicit("Which word?", Answer)
            return answer.data.word if answer.action == "accept" else answer.action

        @server.tool()
        async def wait() -> str:
            self.log.append("waits")
            try:
                await asyncio.Event().wait()
            finally:
                self.log.append("ended")
            return ""

        @server.tool(meta=requires(scopes={"secrets:read"}))
        async def secret() -> str:
            return "secret"

        @server.resource("content://{slug}")
        def content(slug: str) -> str:
            return slug

        return server


async def test_the_sdks_client_of_that_time() -> None:
    """T01: a real client, end to end: calls, progress, a question, what it may not."""

    async def answer(context: Any, params: ElicitRequestParams) -> ElicitResult:
        return ElicitResult(action="accept", content={"word": "sesame"})

    async with serving(Fixture().build) as running:
        _, ann = await running.sign_in("ann")
        headers = {"Authorization": ann.http.headers["Authorization"]}
        async with (
            sse_client(f"{running.url}/sse", headers=headers) as (read, write),
            ClientSession(read, write, elicitation_callback=answer) as session,
        ):
            await session.initialize()
            assert {tool.name for tool in (await session.list_tools()).tools} >= {"whoami", "secret"}
            seen: list[float] = []

            async def progress(done: float, total: float | None, message: str | None) -> None:
                seen.append(done)

            result = await session.call_tool("whoami", progress_callback=progress)
            assert result.content[0].text == "ann"  # type: ignore[union-attr]
            assert seen == [1.0]
            asked = await session.call_tool("ask")
            assert asked.content[0].text == "sesame"  # type: ignore[union-attr]
            with pytest.raises(MCPError) as refused:
                await session.call_tool("secret")
            assert refused.value.data["error"] == "insufficient_scope"
        await until(lambda: not running.endpoint.hosted.sse_peers)


async def test_the_stream_is_its_owners_and_ends_with_the_session() -> None:
    """T02, S04: credentials on both paths, nobody else's stream; what runs ends with it; changes are told."""
    fixture = Fixture()
    async with serving(fixture.build) as running:
        signed_in, ann = await running.sign_in("ann")
        _, bob = await running.sign_in("bob")
        for path in ("/sse", "/messages"):
            refused = await running.client(None).http.request("GET" if path == "/sse" else "POST", path)
            assert refused.status_code == 401
            assert "Location" not in refused.headers
            foreign = await ann.http.get(path, headers={"Origin": "https://evil.example"})
            assert foreign.status_code == 403
        async with ann.stream(method="GET", url="/sse") as stream:
            place = await endpoint_of(stream)
            assert place.startswith("/messages?session_id=")
            assert (await _post(bob, place, "initialize")).status_code == 404
            assert (await _post(ann, "/messages", "initialize")).status_code == 400
            parameters = {
                "protocolVersion": "2024-11-05",
                "capabilities": {},
                "clientInfo": {"name": "tests", "version": "1"},
            }
            assert (await _post(ann, place, "initialize", **parameters)).status_code == 202
            initialized = await stream.next()
            assert initialized is not None
            assert initialized["result"]["protocolVersion"] == "2024-11-05"
            await _post(ann, place, "resources/subscribe", uri="content://a")
            assert await stream.next() == {"jsonrpc": "2.0", "id": 1, "result": {}}
            await EventLogBus(running.auth.events).publish(ResourceUpdated(uri="content://a"))
            told = await stream.next()
            assert told is not None
            assert told["method"] == "notifications/resources/updated"
            await _post(ann, place, "tools/call", name="wait", arguments={})
            await until(lambda: "waits" in fixture.log)
            await running.auth.sessions.revoke(signed_in.id)
            assert await stream.rest() == []
            assert stream.events[1:] == ["message"] * 3
        await until(lambda: "ended" in fixture.log)
        await until(lambda: not running.endpoint.hosted.sse_peers and not len(running.auth.registry))


async def _post(client: Client, place: str, method: str, **params: Any) -> Any:
    return await client.http.post(place, json={"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
