"""Sessions of the 2025 revisions that end otherwise than by their client."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.mcp.legacy import Legacy, request
from tests.mcp.serving import BOUND, named, serving, until
from tornado_sse_auth import MemoryEventLog, MemorySessionStore, StoreUnavailableError
from tornado_sse_auth.mcp.session_records import session_key, session_kind


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


async def test_news_that_come_while_the_store_is_away_are_read_when_it_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """REL-06: they are lost just when the store is. A session that ended meanwhile closes its standing stream."""
    async with serving(named) as running:
        _, ann = await running.sign_in()
        session = await Legacy.connect(ann)
        key, kept, asked = session_key(session.session_id), running.auth.kept, 0

        async def away_once(kind: str, key: str, get: Any = kept.get) -> Any:
            nonlocal asked
            asked += 1
            if asked == 1:
                raise StoreUnavailableError(reason="away")
            return await get(kind, key)

        async with session.get() as standing:
            await until(lambda: len(running.auth.registry) == 1)
            await kept.delete(session_kind("ann"), key)
            monkeypatch.setattr(kept, "get", away_once)
            await running.auth.events.publish(f"mcp-in:{key}", {"value": ""}, event="changed")
            async with asyncio.timeout(BOUND):
                assert await standing.rest() == []
        assert asked == 2
