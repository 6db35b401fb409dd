"""A client of the 2025 revisions that sees every byte."""

from __future__ import annotations

import json
from typing import Any

import httpx

from tests.mcp.serving import Client

LATEST = "2025-11-25"


class Legacy:
    """A client that shakes hands. `at` sends to another process, in the same session."""

    def __init__(self, client: Client, session_id: str, version: str = LATEST) -> None:
        self.client = client
        self.session_id = session_id
        self.headers = {"Mcp-Session-Id": session_id, "MCP-Protocol-Version": version}

    @classmethod
    async def connect(cls, client: Client, version: str = LATEST) -> Legacy:
        params = {
            "protocolVersion": version,
            "capabilities": {"elicitation": {}},
            "clientInfo": {"name": "tests", "version": "1"},
        }
        answer = await client.http.post("/mcp", json=request("initialize", params))
        assert answer.status_code == 200
        assert answer.json()["result"]["protocolVersion"] == version
        connected = cls(client, answer.headers["Mcp-Session-Id"], version)
        assert (await connected.post({"jsonrpc": "2.0", "method": "notifications/initialized"})).status_code == 202
        return connected

    def at(self, client: Client) -> Legacy:
        return Legacy(client, self.session_id, self.headers["MCP-Protocol-Version"])

    async def post(self, message: Any) -> httpx.Response:
        return await self.client.http.post("/mcp", json=message, headers=self.headers)

    async def answer(self, message: Any) -> dict[str, Any]:
        """The answer to a request: as JSON, or in a stream, which the server begins after a quarter of a second."""
        answer = await self.post(message)
        if answer.headers["Content-Type"].startswith("application/json"):
            return dict(answer.json())
        lines = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: {")]
        return dict(json.loads(lines[-1]))

    async def told(self, tool: str, **arguments: Any) -> dict[str, Any]:
        return await self.answer(request("tools/call", {"name": tool, "arguments": arguments}))

    async def call(self, tool: str, **arguments: Any) -> httpx.Response:
        return await self.post(request("tools/call", {"name": tool, "arguments": arguments}))

    def stream(self, message: Any) -> Any:
        return self.client.stream(method="POST", url="/mcp", json=message, headers=self.headers)

    def get(self, last_event_id: str | None = None) -> Any:
        headers = self.headers | ({"Last-Event-ID": last_event_id} if last_event_id else {})
        return self.client.stream(method="GET", url="/mcp", headers=headers)


def request(method: str, params: dict[str, Any] | None = None, id: Any = 1) -> dict[str, Any]:  # noqa: A002
    return {"jsonrpc": "2.0", "id": id, "method": method, "params": params or {}}
