"""What users of the Python SDK's client suffer from, and how far a server can spare them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
from mcp import Client
from mcp.client.auth import AuthorizationCodeResult, OAuthClientProvider, oauth2
from mcp.client.streamable_http import streamable_http_client
from mcp.server.mcpserver import MCPServer
from mcp.shared import auth_utils
from mcp.shared.auth import OAuthClientMetadata

from tests.authorization_server.kit import SCOPES, Browser, World
from tests.authorization_server.test_metadata_documents import URL, publishing
from tests.mcp.clients.python_sdk import REDIRECT, Storage
from tests.mcp.serving import named
from tests.scenarios.server import serve
from tornado_sse_auth import MemorySessionStore, SSEAuthenticationMiddleware
from tornado_sse_auth.authorization_server import AuthorizationServer, MetadataDocuments
from tornado_sse_auth.mcp import MCPEndpoint, current_user
from tornado_sse_auth.testing import ManualClock

TOGETHER = 4


class Person:
    """Signed in already; agrees whenever a client asks, and counts."""

    def __init__(self, browser: Browser) -> None:
        self.asked = 0
        self._browser = browser
        self._answer = ""

    async def open(self, url: str) -> None:
        self.asked += 1
        page = await self._browser.open(url)
        self._answer = (await self._browser.press(page)).headers["Location"]

    async def answer(self) -> AuthorizationCodeResult:
        query = {name: values[0] for name, values in parse_qs(urlsplit(self._answer).query).items()}
        return AuthorizationCodeResult(code=query["code"], state=query.get("state"), iss=query.get("iss"))


@asynccontextmanager
async def connected(
    world: World, person: Person, storage: Storage, *, mode: str, metadata_url: str | None = None
) -> AsyncIterator[Client]:
    """The SDK's client with its OAuth."""
    metadata: dict[str, Any] = {
        "client_name": "Python",
        "redirect_uris": [REDIRECT],
        "grant_types": ["authorization_code", "refresh_token"],
        "token_endpoint_auth_method": "none",
    }
    url = f"{world.url}/mcp"
    auth = OAuthClientProvider(
        url, OAuthClientMetadata(**metadata), storage, person.open, person.answer, client_metadata_url=metadata_url
    )
    async with (
        httpx2.AsyncClient(auth=auth, timeout=30, trust_env=False) as http,
        Client(streamable_http_client(url, http_client=http), mode=mode) as client,
    ):
        yield client


@asynccontextmanager
async def granting(documents: MetadataDocuments | None = None, **options: Any) -> AsyncIterator[World]:
    """An MCP server whose one tool needs company."""
    meeting = asyncio.Barrier(TOGETHER)

    def build(auth: SSEAuthenticationMiddleware) -> MCPServer[Any]:
        server = named(auth)

        @server.tool()
        async def meet() -> str:
            async with asyncio.timeout(15):
                await meeting.wait()
            return "met"

        @server.tool()
        async def whoami() -> str:
            return current_user().user_id

        return server

    def rules(auth: SSEAuthenticationMiddleware) -> list[Any]:
        server = AuthorizationServer(auth, scopes=SCOPES, documents=documents)
        return [*MCPEndpoint(build(auth), auth=auth).routes(), *server.routes()]

    async with AsyncExitStack() as stack:
        app = await stack.enter_async_context(serve(rules=rules, **options))
        world = World(app, await stack.enter_async_context(app.client()))
        yield world
        for browser in world.browsers:
            await browser.http.aclose()


def text_of(result: Any) -> str:
    return str(result.content[0].text)


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_calls_of_one_client_run_at_the_same_time(mode: str) -> None:
    """G5: its OAuth holds a lock until an answer's headers are there, so a call that takes long gets them early."""
    async with granting() as world:
        person = Person(await world.signed_in())
        async with connected(world, person, Storage(), mode=mode) as client:
            results = await asyncio.gather(*(client.call_tool("meet") for _ in range(TOGETHER)))
        assert [text_of(result) for result in results] == ["met"] * TOGETHER
        assert person.asked == 1


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_client_that_was_restarted(mode: str) -> None:
    """G6: it forgets when its stored token ends. While that is good nobody is asked; afterwards the client asks its
    user again instead of refreshing: that is one page, no sign-in at the provider, and no call fails."""
    clock = ManualClock()
    async with granting(store=MemorySessionStore(clock=clock), clock=clock) as world:
        person, storage = Person(await world.signed_in()), Storage()
        for asked, later in ((1, 0.0), (1, 599.0), (2, 700.0)):
            clock.advance(later)
            async with connected(world, person, storage, mode=mode) as client:
                assert text_of(await client.call_tool("whoami")) == "https://issuer|alice"
            assert person.asked == asked


async def test_a_client_that_publishes_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole way with a metadata document in place of a registration, refresh included: what the client takes for
    expired it refreshes before the next call."""
    clock = ManualClock()
    for module in (oauth2, auth_utils):  # the client's own clock
        monkeypatch.setattr(module, "time", clock)
    async with publishing(clock) as publisher:
        publisher.document["redirect_uris"] = [REDIRECT]
        publisher.document["token_endpoint_auth_method"] = "none"
        store = MemorySessionStore(clock=clock)
        async with granting(publisher.documents, store=store, clock=clock, access_token_ttl=1) as world:
            person, storage = Person(await world.signed_in()), Storage()
            async with connected(world, person, storage, mode="auto", metadata_url=URL) as client:
                tokens = set()
                for _ in range(3):
                    assert text_of(await client.call_tool("whoami")) == "https://issuer|alice"
                    assert storage.tokens is not None
                    tokens.add(storage.tokens.access_token)
                    clock.advance(1.1)
            assert person.asked == 1
            assert len(tokens) == 3
            assert storage.client is not None
            assert storage.client.client_id == URL
            assert len(publisher.requests) == 1
