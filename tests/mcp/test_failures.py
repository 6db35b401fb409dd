"""What a client hears when this server fails."""

from __future__ import annotations

from typing import Any

import pytest

from tests.mcp.legacy import LATEST, Legacy, request
from tests.mcp.serving import named, serving
from tornado_sse_auth import MemorySessionStore

HELLO = {"protocolVersion": LATEST, "capabilities": {}, "clientInfo": {"name": "tests", "version": "1"}}


async def test_a_failure_is_answered_in_the_protocol_and_says_nothing_of_itself(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """SEC-58: 500 with the request id, by which the log's traceback is found; the session goes on."""
    store = MemorySessionStore()
    async with serving(named, store=store) as running:
        _, ann = await running.sign_in()
        session = await Legacy.connect(ann)

        async def broken(*_: Any) -> None:
            raise RuntimeError("the password is canary")

        with monkeypatch.context() as broken_store:
            broken_store.setattr(store.kept, "put", broken)
            asked = await ann.http.post("/mcp", json=request("initialize", HELLO, id="first"))
            broken_store.setattr(store.kept, "delete", broken)
            left = await ann.http.delete("/mcp", headers=session.headers)
        assert (asked.status_code, left.status_code) == (500, 500)
        assert asked.json()["id"] == "first"
        assert asked.json()["error"]["data"]["error"] == left.json()["error"] == "server_error"
        for answer in (asked, left):
            assert answer.headers["X-Request-ID"] in answer.text
            assert "canary" not in answer.text
        assert "RuntimeError: the password is canary" in caplog.text
        assert (await session.post(request("ping"))).status_code == 200
