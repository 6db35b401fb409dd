"""The questions, as plain HTTP. Each gives the answer in a few words."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import httpx

from tests.parts.token_issuer import TokenIssuer

BOTH = "a:read b:read"
MODERN = "2026-07-28"
LEGACY = "2025-11-25"


@dataclass(frozen=True)
class Subject:
    """A server under comparison: two processes of it, which are one for its clients."""

    name: str
    first: str
    second: str
    issuer: TokenIssuer

    @property
    def resource(self) -> str:
        """What a token for it names as its audience."""
        return f"{self.first}/mcp"

    def token(self, **more: Any) -> str:
        """A good one, unless said otherwise."""
        return self.issuer.access_token(**{"audience": self.resource, "scope": BOTH} | more)

    async def post(
        self, token: str | None, method: str, params: dict[str, Any] | None = None, *, at: str = "", **headers: str
    ) -> httpx.Response:
        """One message; a stream is read to its end."""
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params or {}}
        fixed = {"Accept": "application/json, text/event-stream", **headers}
        if token is not None:
            fixed["Authorization"] = f"Bearer {token}"
        async with httpx.AsyncClient(trust_env=False, timeout=15) as client:
            return await client.post(f"{at or self.first}/mcp", json=body, headers=fixed)

    async def modern(self, token: str | None, method: str, **params: Any) -> httpx.Response:
        """A request of 2026-07-28."""
        meta = {
            "io.modelcontextprotocol/protocolVersion": MODERN,
            "io.modelcontextprotocol/clientCapabilities": {},
        }
        headers = {"MCP-Protocol-Version": MODERN, "Mcp-Method": method}
        if "name" in params:
            headers["Mcp-Name"] = params["name"]
        return await self.post(token, method, {**params, "_meta": meta}, **headers)

    async def connect(self, token: str) -> dict[str, str]:
        """A session of 2025-11-25; the headers that carry it."""
        client = {"name": "probe", "version": "1"}
        params = {"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": client}
        answer = await self.post(token, "initialize", params)
        return {"Mcp-Session-Id": answer.headers["Mcp-Session-Id"], "MCP-Protocol-Version": LEGACY}


def message_of(response: httpx.Response) -> dict[str, Any]:
    """The JSON-RPC message in an answer, JSON or a stream."""
    text = response.text
    if response.headers.get("Content-Type", "").startswith("text/event-stream"):
        text = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: {")][-1]
    found: dict[str, Any] = json.loads(text)
    return found


async def token_end(subject: Subject) -> str:
    """What becomes of a standing stream at the end of the token it was opened with?"""
    session = await subject.connect(subject.token())
    ends = time.time() + 4
    token = subject.token(exp=ends)
    headers = {"Authorization": f"Bearer {token}", "Accept": "text/event-stream", **session}
    async with (
        httpx.AsyncClient(trust_env=False, timeout=httpx.Timeout(10, read=None)) as client,
        client.stream("GET", f"{subject.first}/mcp", headers=headers) as response,
    ):
        if response.status_code != 200:
            return f"{response.status_code}"
        try:
            async with asyncio.timeout(ends - time.time() + 3):
                async for _ in response.aiter_raw():
                    pass
        except TimeoutError:
            return "open 3 s later"
    return "closed"


async def no_credential(subject: Subject) -> str:
    """What does the challenge say to a client without a credential?"""
    challenge = (await subject.modern(None, "tools/list")).headers.get("WWW-Authenticate", "")
    code = "an error code" if "error=" in challenge else "no error code"
    return f"{code}, {'all scopes' if BOTH in challenge else 'no scope'}"


async def two_scopes_lack(subject: Subject) -> str:
    """Which scopes does the challenge name when two lack?"""
    answer = await subject.modern(subject.token(scope="other"), "tools/call", name="whoami", arguments={})
    challenge = answer.headers.get("WWW-Authenticate", "")
    named = [scope for scope in BOTH.split() if scope in challenge.partition("scope=")[2]]
    return f"{answer.status_code}, {'both' if len(named) == 2 else 'one' if named else 'none'}"


async def another_audience(subject: Subject) -> str:
    """Is a token taken that was issued for another server?"""
    token = subject.token(audience="https://other.example/mcp")
    answer = await subject.modern(token, "tools/call", name="whoami", arguments={})
    return "taken" if answer.status_code == 200 else "refused"


async def metadata_at_the_root(subject: Subject) -> str:
    """Is the resource's metadata at the root, too?"""
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.get(f"{subject.first}/.well-known/oauth-protected-resource")
    return "yes" if answer.status_code == 200 else "no"


async def another_process(subject: Subject) -> str:
    """Does another process go on with a session of 2025-11-25?"""
    token = subject.token()
    session = await subject.connect(token)
    await subject.post(token, "ping", **session)
    answer = await subject.post(token, "tools/list", at=subject.second, **session)
    return "yes" if answer.status_code == 200 and "result" in message_of(answer) else f"no, {answer.status_code}"


async def unknown_tool(subject: Subject) -> str:
    """What does a call of an unknown tool get? The specification wants the error -32602."""
    answer = message_of(await subject.modern(subject.token(), "tools/call", name="nothing", arguments={}))
    return str(answer["error"]["code"]) if "error" in answer else "a result"


async def listening(subject: Subject) -> str:
    """Is `subscriptions/listen` of 2026-07-28 served?"""
    try:
        async with asyncio.timeout(3):
            answer = await subject.modern(
                subject.token(), "subscriptions/listen", notifications={"toolsListChanged": True}
            )
    except (TimeoutError, httpx.ReadTimeout):
        return "yes"
    return "no" if "error" in message_of(answer) else "yes"


PROBES: tuple[Callable[[Subject], Awaitable[str]], ...] = (
    token_end,
    no_credential,
    two_scopes_lack,
    another_audience,
    metadata_at_the_root,
    another_process,
    listening,
    unknown_tool,
)
