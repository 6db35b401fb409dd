"""Sessions of the 2025 revisions that end otherwise than by their client."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from mcp.server.mcpserver import Context, MCPServer

from tests.mcp.legacy import Legacy, request
from tests.mcp.serving import BOUND, named, serving, until
from tornado_sse_auth import (
    MemoryEventLog,
    MemorySessionStore,
    SSEAuthenticationMiddleware,
    StoreUnavailableError,
)
from tornado_sse_auth.mcp.session_records import session_key, session_kind


def waiting(auth: SSEAuthenticationMiddleware) -> MCPServer[Any]:
    """A server with a tool that says a word and never answers."""
    server = named(auth)

    @server.tool()
    async def wait(ctx: Context[Any, Any]) -> str:
        await ctx.info("waits")
        await asyncio.Event().wait()
        return "never"

    return server


pytestmark = pytest.mark.filterwarnings("ignore::mcp.shared.exceptions.MCPDeprecationWarning")

WAIT = request("tools/call", {"name": "wait", "arguments": {}}, id=7)


async def test_a_session_that_makes_room_ends_with_its_streams() -> None:
    """SEC-08: at once, also those in another process; what holds connections open is bounded with the sessions."""
    store, events = MemorySessionStore(), MemoryEventLog()
    async with (
        serving(named, store=store, events=events, endpoint={"max_sessions_per_user": 1}) as here,
        serving(named, store=store, events=events) as there,
    ):
        _, ann = await here.sign_in("ann")
        session = await Legacy.connect(ann)
        elsewhere = session.at(there.client(ann.http.headers["Authorization"].removeprefix("Bearer ")))
        async with elsewhere.get() as standing:
            await until(lambda: len(there.auth.registry) == 1)
            await Legacy.connect(ann)
            async with asyncio.timeout(BOUND):
                assert await standing.rest() == []
        assert (await elsewhere.post(request("ping"))).status_code == 404


async def test_a_session_that_makes_room_ends_with_what_is_read_on() -> None:
    """SEC-08: the rest of a stream that began over another connection, in another process."""
    store, events = MemorySessionStore(), MemoryEventLog()
    async with (
        serving(waiting, store=store, events=events, endpoint={"max_sessions_per_user": 1}) as here,
        serving(waiting, store=store, events=events) as there,
    ):
        _, ann = await here.sign_in("ann")
        session = await Legacy.connect(ann)
        elsewhere = session.at(there.client(ann.http.headers["Authorization"].removeprefix("Bearer ")))
        async with session.stream(WAIT) as stream:
            await stream.next()
            await stream.next()
        async with elsewhere.get(stream.ids[-1]) as rest:
            await until(lambda: len(there.auth.registry) == 1)
            await Legacy.connect(ann)
            async with asyncio.timeout(BOUND):
                assert await rest.rest() == []


async def test_a_stream_that_opens_as_its_session_ends_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """SEC-08: the end came after the session was found, and before there was a stream to end."""
    async with serving(named) as running:
        _, ann = await running.sign_in()
        session = await Legacy.connect(ann)
        events, key = running.auth.events, session_key(session.session_id)
        publish = events.publish

        async def overtaken(channel: str, data: Any, **options: Any) -> int:
            n = await publish(channel, data, **options)
            if options.get("event") == "opened":
                await publish(f"mcp-in:{key}", {"value": ""}, event="ended")
                for _ in range(10):  # until that is heard
                    await asyncio.sleep(0)
            return n

        monkeypatch.setattr(events, "publish", overtaken)
        async with session.get() as standing, asyncio.timeout(BOUND):
            assert await standing.rest() == []


@pytest.mark.parametrize("what", ["standing", "call"])
async def test_news_that_come_while_the_store_is_away_are_read_when_it_is_back(
    monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """REL-06: they are lost just when the store is. A session that ended meanwhile closes its streams."""
    async with serving(waiting) as running:
        _, ann = await running.sign_in()
        session = await Legacy.connect(ann)
        key, kept, asked = session_key(session.session_id), running.auth.kept, 0

        async def away_once(kind: str, key: str, get: Any = kept.get) -> Any:
            nonlocal asked
            asked += 1
            if asked == 1:
                raise StoreUnavailableError(reason="away")
            return await get(kind, key)

        async with session.get() if what == "standing" else session.stream(WAIT) as stream:
            await until(lambda: len(running.auth.registry) == 1)
            await kept.delete(session_kind("ann"), key)
            monkeypatch.setattr(kept, "get", away_once)
            await running.auth.events.publish(f"mcp-in:{key}", {"value": ""}, event="changed")
            async with asyncio.timeout(BOUND):
                await stream.rest()
        assert asked == 2
