"""The Python SDK's clients: Streamable HTTP of either era, and HTTP+SSE of 2024-11-05."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
from mcp import Client, ClientSession
from mcp.client.auth import AuthorizationCodeResult, OAuthClientProvider, TokenStorage
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import OAuthClientInformationFull, OAuthClientMetadata, OAuthToken

from tests.mcp.clients.consent import consent
from tests.mcp.clients.work import Order, Outcome, work

REDIRECT = "http://127.0.0.1:1/callback"  # nobody listens: the answer is read from the redirect itself


class Storage(TokenStorage):
    """In memory."""

    def __init__(self) -> None:
        self.tokens: OAuthToken | None = None
        self.client: OAuthClientInformationFull | None = None

    async def get_tokens(self) -> OAuthToken | None:
        return self.tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self.tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return self.client

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        self.client = client_info


class SignIn:
    """The OAuth half of one client; counts how often its user is asked."""

    def __init__(self, order: Order, name: str) -> None:
        self.storage = Storage()
        self.count = 0
        self._order = order
        self._redirect = ""
        metadata: dict[str, Any] = {
            "client_name": name,
            "redirect_uris": [REDIRECT],
            "grant_types": ["authorization_code", "refresh_token"],
            "response_types": ["code"],
            "token_endpoint_auth_method": "none",
        }
        self.auth = OAuthClientProvider(
            order.url, OAuthClientMetadata(**metadata), self.storage, self._open_browser, self._wait_for_answer
        )

    async def _open_browser(self, url: str) -> None:
        self.count += 1
        order = self._order
        self._redirect = await consent(url, order.account, server=order.server, provider=order.provider)

    async def _wait_for_answer(self) -> AuthorizationCodeResult:
        query = {name: values[0] for name, values in parse_qs(urlsplit(self._redirect).query).items()}
        return AuthorizationCodeResult(code=query["code"], state=query.get("state"), iss=query.get("iss"))


@asynccontextmanager
async def connected(order: Order, sign_in: SignIn, mode: str) -> AsyncIterator[Client]:
    """A client over Streamable HTTP, signed in."""
    async with (
        httpx2.AsyncClient(auth=sign_in.auth, timeout=30, trust_env=False) as http,
        Client(streamable_http_client(order.url, http_client=http), mode=mode) as client,
    ):
        yield client


async def modern(order: Order) -> Outcome:
    """`Client` in 2026-07-28."""
    return await _streamable(order, "auto")


async def legacy(order: Order) -> Outcome:
    """`Client` with the handshake of 2025-11-25."""
    return await _streamable(order, "legacy")


async def _streamable(order: Order, mode: str) -> Outcome:
    outcome, sign_in = Outcome(), SignIn(order, f"Python SDK {mode}")
    async with connected(order, sign_in, mode) as client:
        outcome.version = client.protocol_version
        await work(order, outcome, client.call_tool)
    outcome.sign_ins = sign_in.count
    return outcome


async def sse(order: Order) -> Outcome:
    """`sse_client`: two addresses, 2024-11-05."""
    outcome, sign_in = Outcome(), SignIn(order, "Python SDK sse_client")
    async with (
        sse_client(order.url, auth=sign_in.auth, timeout=30) as (reader, writer),
        ClientSession(reader, writer) as session,
    ):
        outcome.version = str((await session.initialize()).protocol_version)
        await work(order, outcome, session.call_tool)
    outcome.sign_ins = sign_in.count
    return outcome
