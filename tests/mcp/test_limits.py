"""What one client or user of the 2025 revisions may have at a time, and leave in the store."""

from __future__ import annotations

import asyncio
from typing import Any

from mcp.server.mcpserver import MCPServer

from tests.mcp.legacy import LATEST, Legacy, request
from tests.mcp.serving import BOUND, named, serving, until
from tornado_sse_auth import MemorySessionStore, SSEAuthenticationMiddleware
from tornado_sse_auth.mcp.session_records import session_key, session_kind
from tornado_sse_auth.testing import ManualClock

HOUR = 3600.0
HELLO = {"protocolVersion": LATEST, "capabilities": {}, "clientInfo": {"name": "tests", "version": "1"}}


class Fixture:
    """One tool that waits, and resources."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()

    def build(self, auth: SSEAuthenticationMiddleware) -> MCPServer[Any]:
        server = named(auth)

        @server.tool()
        async def wait() -> None:
            await self.gate.wait()

        @server.resource("content://{slug}")
        def content(slug: str) -> str:
            return slug

        return server


async def test_requests_under_way() -> None:
    """Requests that outlive their connections count; an id in use is refused."""
    fixture = Fixture()
    async with serving(fixture.build, max_streams_per_user=3) as running:
        _, ann = await running.sign_in()
        session = await Legacy.connect(ann)
        for number in range(3):
            async with session.stream(request("tools/call", {"name": "wait", "arguments": {}}, id=number)) as stream:
                await stream.next()
            await until(lambda: not len(running.auth.registry))
        assert (await session.post(request("ping", id=2))).status_code == 400
        beyond = await session.post(request("ping", id=3))
        assert beyond.status_code == 429
        assert "Retry-After" in beyond.headers
        fixture.gate.set()
        async with asyncio.timeout(BOUND):
            while (await session.post(request("ping", id=4))).status_code != 200:
                pass


async def test_sessions_of_a_user() -> None:
    """SEC-08: beyond the limit the user's session goes that was used longest ago, and no other: one that is in use
    stays, and so does another user's, however old."""
    fixture, clock = Fixture(), ManualClock()
    limits = {"max_sessions_per_user": 3, "max_handshakes": 4}
    store = MemorySessionStore(clock=clock)
    async with serving(fixture.build, store=store, clock=clock, endpoint=limits) as running:
        (_, ann), (_, bob) = await running.sign_in("ann"), await running.sign_in("bob")
        bobs, used = await Legacy.connect(bob), await Legacy.connect(ann)
        made = [used]
        for _ in range(5):
            clock.advance(2 * HOUR)
            assert (await used.post(request("ping"))).status_code == 200
            made.append(await Legacy.connect(ann))
        clock.advance(2 * HOUR)
        found = [(await session.post(request("ping"))).status_code for session in made]
        assert found == [200, 404, 404, 404, 200, 200]
        assert (await bobs.post(request("ping"))).status_code == 200
        begun = [await ann.http.post("/mcp", json=request("initialize", HELLO)) for _ in range(5)]
        assert [answer.status_code for answer in begun] == [200] * 4 + [429]
        assert "Retry-After" in begun[-1].headers
        await Legacy.connect(bob)


async def test_what_a_session_leaves_in_the_store_is_bounded() -> None:
    """SEC-08, SEC-60: sessions live for days, and each process keeps those in use at hand: neither what a client says
    of itself nor the resources it watches may be megabytes."""
    fixture = Fixture()
    async with serving(fixture.build) as running:
        _, ann = await running.sign_in("ann")
        session = await Legacy.connect(ann)
        told = {"protocolVersion": LATEST, "capabilities": {}, "clientInfo": {"name": "x" * 70_000, "version": "1"}}
        answer = await ann.http.post("/mcp", json=request("initialize", told))
        assert answer.status_code == 413
        assert "Mcp-Session-Id" not in answer.headers
        assert answer.json()["error"]["data"]["error"] == "request_too_large"
        answers = [
            (await session.post(request("resources/subscribe", {"uri": f"content://{n}" + "x" * 5_000}))).json()
            for n in range(20)
        ]
        assert "result" in answers[0]
        assert answers[-1]["error"]["code"] == -32602
        kept = (await running.auth.kept.get(session_kind("ann"), session_key(session.session_id))).value["uris"]
        assert 10 < len(kept) < 14
        assert (await session.post(request("resources/subscribe", {"uri": kept[0]}))).json()["result"] == {}
        assert (await session.post(request("resources/unsubscribe", {"uri": kept[0]}))).json()["result"] == {}
        assert (await session.post(request("resources/subscribe", {"uri": "content://a"}))).json()["result"] == {}
        for uris in ([""] * 1_001, ["content://" + "a" * 500] * 200):
            listen = ann.modern("subscriptions/listen", {"notifications": {"resourceSubscriptions": uris}})
            assert (await ann.http.request(**listen)).json()["error"]["code"] == -32602
