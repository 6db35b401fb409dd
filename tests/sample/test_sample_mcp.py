"""The sample's MCP server as a process, used by the SDK's own client with a bearer."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import httpx2
import pytest
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client

from sample_server.content import CONTENT
from tests.parts.sse_client import SSEClient
from tests.sample.test_sample_server import Sample, running

TOOLS = {"whoami", "search_content", "read_content", "upstream_profile", "countdown", "publish"}


@pytest.fixture(scope="module")
def sample() -> Iterator[Sample]:
    with running() as started:
        yield started


async def bearer_of(url: str, account: str, scope: str | None = None) -> str:
    """Sign in as a browser does, and make a bearer."""
    async with httpx.AsyncClient(base_url=url, follow_redirects=True, trust_env=False, timeout=20) as browser:
        query = {"login_hint": account, "return_to": "/me"} | ({} if scope is None else {"scope": scope})
        (await browser.get("/auth/login", params=query)).raise_for_status()
        made = await browser.post("/auth/token", json={"grant": "session"}, headers={"Origin": url})
        return str(made.raise_for_status().json()["access_token"])


@asynccontextmanager
async def client(sample: Sample, bearer: str, mode: Any = "2026-07-28") -> AsyncIterator[Client]:
    headers = {"Authorization": f"Bearer {bearer}"}
    async with httpx2.AsyncClient(headers=headers, timeout=30, trust_env=False) as http:
        transport = streamable_http_client(f"{sample.url}/mcp", http_client=http)
        async with Client(transport, mode=mode) as connected:
            yield connected


def text_of(result: Any) -> str:
    return str(result.content[0].text)


async def test_the_tools(sample: Sample) -> None:
    async with client(sample, sample.bearer) as mcp:
        assert {tool.name for tool in (await mcp.list_tools()).tools} == TOOLS
        me = (await mcp.call_tool("whoami")).structured_content
        assert me is not None
        assert me["name"] == "Ada Lovelace"
        assert me["subscription"] == "pro"
        found = (await mcp.call_tool("search_content", {"query": "refresh token races"})).structured_content
        assert found is not None
        assert found["result"][0]["slug"] == "refresh-races"
        assert "conditional write" in text_of(await mcp.call_tool("read_content", {"slug": "refresh-races"}))
        unknown = await mcp.call_tool("read_content", {"slug": "zebras"})
        assert unknown.is_error
        assert "search_content" in text_of(unknown)
        assert (await mcp.call_tool("read_content", {"slug": "../options"})).is_error
        profile = (await mcp.call_tool("upstream_profile")).structured_content
        assert profile is not None
        assert profile["name"] == "Ada Lovelace"
        steps: list[float] = []

        async def progress(passed: float, total: float | None, message: str | None) -> None:
            steps.append(passed)

        done = await mcp.call_tool("countdown", {"seconds": 1}, progress_callback=progress)
        assert text_of(done) == "1 seconds have passed."
        assert steps == [0, 1]
        async with SSEClient(f"{sample.url}/events", bearer=sample.bearer) as events:
            await events.next("open")
            published = (await mcp.call_tool("publish", {"text": "from a tool"})).structured_content
            message = await events.next("message")
            assert message.json() == {"text": "from a tool", "from": "mcp"}
            assert published == {"id": message.id}


async def test_resources_prompts_and_who_hears_of_a_change(sample: Sample) -> None:
    async with client(sample, sample.bearer) as mcp:
        listed = {str(resource.uri) for resource in (await mcp.list_resources()).resources}
        assert listed == {f"content://{file.stem}" for file in CONTENT.glob("*.md")}
        assert "code exchange" in (await mcp.read_resource("content://pkce")).contents[0].text.lower()  # type: ignore[union-attr]
        with pytest.raises(MCPError):
            await mcp.read_resource("content://zebras")
        prompt = await mcp.get_prompt("summarize", {"slug": "pkce"})
        assert "verifier" in prompt.messages[0].content.text  # type: ignore[union-attr]
        completed = await mcp.complete(
            ref={"type": "ref/prompt", "name": "summarize"},  # type: ignore[arg-type]
            argument={"name": "slug", "value": "re"},
        )
        assert completed.completion.values == ["refresh-races", "revocation"]
        async with mcp.listen(resource_subscriptions=["content://pkce", "content://refresh-races"]) as changes:
            for slug in ("refresh-races", "pkce"):
                os.utime(CONTENT / f"{slug}.md")
                change = await anext(aiter(changes))
                assert getattr(change, "uri", None) == f"content://{slug}"


async def test_what_a_user_without_a_subscription_or_scope_sees(sample: Sample) -> None:
    """Nothing is hidden in lists; the text that is paid for is neither given nor are its changes told."""
    async with client(sample, await bearer_of(sample.url, "alan")) as mcp:
        assert "Code Exchange" in text_of(await mcp.call_tool("read_content", {"slug": "pkce"}))
        for refused in (await mcp.call_tool("read_content", {"slug": "refresh-races"}),):
            assert refused.is_error
            assert "subscription pro" in text_of(refused)
        assert "content://refresh-races" in {str(one.uri) for one in (await mcp.list_resources()).resources}
        with pytest.raises(MCPError, match="subscription pro"):
            await mcp.read_resource("content://refresh-races")
        with pytest.raises(MCPError, match="subscription pro"):
            await mcp.get_prompt("summarize", {"slug": "refresh-races"})
        wanted = ["content://pkce", "content://refresh-races"]
        async with mcp.listen(resource_subscriptions=wanted) as changes:
            assert changes.honored.resource_subscriptions == ["content://pkce"]
    narrow = await bearer_of(sample.url, "alan", "content:read")
    async with client(sample, narrow) as mcp:
        with pytest.raises(MCPError):
            await mcp.call_tool("publish", {"text": "no"})
