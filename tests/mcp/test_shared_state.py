"""What the SDK's server object would keep to one process, in two: the state that clients carry, and what changed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from mcp.server.lowlevel.server import Server
from mcp.server.mcpserver import Context, MCPServer, RequestStateSecurity
from mcp.server.subscriptions import ToolsListChanged
from mcp_types import ElicitRequest, ElicitRequestFormParams, InputRequiredResult
from pymongo import AsyncMongoClient

from tests.mcp.serving import Client, Running, serving
from tornado_sse_auth import Keyring, MongoEventLog, MongoSessionStore, SSEAuthenticationMiddleware
from tornado_sse_auth.identity import CredentialKind
from tornado_sse_auth.mcp import EventLogBus, MCPEndpoint

QUESTION = ElicitRequest(
    params=ElicitRequestFormParams(
        message="Sure?", requested_schema={"type": "object", "properties": {"ok": {"type": "boolean"}}}
    )
)


def build(auth: SSEAuthenticationMiddleware) -> MCPServer[Any]:
    """As one writes it: nothing is said of processes."""
    server: MCPServer[Any] = MCPServer("plain")

    @server.tool()
    async def confirm(ctx: Context[Any, Any]) -> str | InputRequiredResult:
        if ctx.request_state is None:
            return InputRequiredResult(input_requests={"ok": QUESTION}, request_state="asked")
        return f"{ctx.request_state}, and answered: {ctx.input_responses is not None}"

    @server.tool()
    async def change(ctx: Context[Any, Any]) -> str:
        await ctx.notify_tools_changed()
        return "changed"

    return server


@pytest.fixture
async def processes(mongod: Any, database_name: str) -> AsyncIterator[list[Running]]:
    """Two, over one database."""
    keyring = Keyring.generate()
    async with AsyncExitStack() as stack:
        found = []
        for _ in range(2):
            client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(mongod.uri)
            stack.push_async_callback(client.close)
            database = client[database_name]
            store, events = MongoSessionStore(database, keyring), MongoEventLog(database)
            # One name for both, as behind one load balancer: the issuer is part of whose state it is.
            found.append(
                await stack.enter_async_context(
                    serving(
                        build,
                        store=store,
                        events=events,
                        public_url="https://app.example",
                    )
                )
            )
        yield found


async def test_state_and_changes_pass_between_processes(processes: list[Running]) -> None:
    """T32, SEC-52: good at every process, for who was asked alone, and only unchanged."""
    one, other = processes
    _, secret = await one.auth.sessions.create(user_id="ann", kind=CredentialKind.BEARER)
    _, bobs = await one.auth.sessions.create(user_id="bob", kind=CredentialKind.BEARER)
    ann, there, bob = one.client(secret.reveal()), other.client(secret.reveal()), other.client(bobs.reveal())
    asked = (await ann.tool("confirm")).json()["result"]
    assert asked["resultType"] == "input_required"
    state = asked["requestState"]

    async def answer(client: Client, state: str) -> dict[str, Any]:
        answers = {"ok": {"action": "accept", "content": {"ok": True}}}
        params = {"name": "confirm", "arguments": {}, "inputResponses": answers, "requestState": state}
        document: dict[str, Any] = (await client.call("tools/call", params)).json()
        return document

    assert (await answer(there, state))["result"]["content"][0]["text"] == "asked, and answered: True"
    for client, wrong in ((bob, state), (there, state[:-4] + "AAAA"), (there, "no base64 at all"), (there, "")):
        assert (await answer(client, wrong))["error"]["code"] == -32602

    async with there.listen(toolsListChanged=True) as stream:
        await stream.next()
        await ann.tool("change")
        told = await stream.next()
        assert told is not None
        assert told["method"] == "notifications/tools/list_changed"
        await one.endpoint.bus.publish(ToolsListChanged())
        assert await stream.next() == told


async def test_what_an_application_chose_stays() -> None:
    """A policy with several keys, a bus, a low-level server without either."""
    policy = RequestStateSecurity(keys=[b"a" * 32, b"b" * 32])

    def chosen(auth: SSEAuthenticationMiddleware) -> MCPServer[Any]:
        return MCPServer("chosen", request_state_security=policy, subscriptions=EventLogBus(auth.events, "mine"))

    async with serving(chosen) as running:
        server = running.endpoint.hosted.server
        assert any(getattr(part, "_security", None) is policy for part in server.middleware)
        assert isinstance(running.endpoint.bus, EventLogBus)
        assert running.endpoint.bus._channel.endswith(":mine")
        low = MCPEndpoint(Server("low"), auth=running.auth)
        assert isinstance(low.bus, EventLogBus)
