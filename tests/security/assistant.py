"""An MCP client on the whole of its way, every secret of it planted: consent, calls, streams, refresh, the end."""

from __future__ import annotations

import base64
import hashlib
import secrets
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx

from tests.authorization_server.kit import REDIRECT, form_of
from tests.mcp.legacy import Legacy, request
from tests.mcp.serving import Client
from tests.security.canaries import Visitor

__all__ = ["Assistant"]


class Assistant:
    """A client with a secret, which the signed-in `visitor` lets in."""

    def __init__(self, visitor: Visitor) -> None:
        self.visitor = visitor
        self.credentials: dict[str, str] = {}
        self.tokens: dict[str, Any] = {}

    async def sign_in(self) -> None:
        """Register, ask, be allowed, get tokens."""
        http, canaries = self.visitor.client, self.visitor.canaries
        metadata = {"redirect_uris": [REDIRECT], "token_endpoint_auth_method": "client_secret_post"}
        registered = (await http.post("/oauth/register", json=metadata)).json()
        self.credentials = {name: registered[name] for name in ("client_id", "client_secret")}
        verifier, state = secrets.token_urlsafe(48), secrets.token_urlsafe(24)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        page = await http.get(
            "/oauth/authorize",
            params={
                "response_type": "code",
                "client_id": self.credentials["client_id"],
                "redirect_uri": REDIRECT,
                "state": state,
                "code_challenge": challenge,
                "code_challenge_method": "S256",
                "resource": f"{self.visitor.url}/mcp",
            },
        )
        fields = form_of(page.text)
        headers = {"Origin": self.visitor.url}
        allowed = await http.post("/oauth/authorize", data={**fields, "decision": "allow"}, headers=headers)
        code = parse_qs(urlsplit(allowed.headers["Location"]).query)["code"][0]
        canaries.add("assistant's secret", self.credentials["client_secret"])
        canaries.add("assistant's verifier", verifier)
        canaries.add("assistant's state", state)
        canaries.add("assistant's code", code)
        canaries.add("consent", *fields.values())
        await self._token(grant_type="authorization_code", code=code, redirect_uri=REDIRECT, code_verifier=verifier)

    async def refresh(self) -> None:
        """The next tokens."""
        await self._token(grant_type="refresh_token", refresh_token=self.tokens["refresh_token"])

    async def work(self) -> None:
        """Call tools in both ways, read streams, lose one and come back to it; what is wrong is said, too."""
        client, listener = self._client(noted=True), self._client(noted=False)
        assert (await client.tool("whoami")).status_code == 200
        assert (await client.tool("upstream_profile")).status_code == 200
        assert "0" in (await client.tool("countdown", seconds=1)).text
        assert (await client.tool("no such tool")).status_code < 500
        session = await Legacy.connect(client)
        self.visitor.canaries.add("MCP session", session.session_id)
        assert (await session.call("whoami")).status_code == 200
        async with session.at(listener).stream(
            request("tools/call", {"name": "countdown", "arguments": {"seconds": 1}})
        ) as stream:
            await stream.next()
        async with session.at(listener).get(stream.ids[0]) as rest:
            assert await rest.rest()
        async with session.at(listener).get(), listener.listen(toolsListChanged=True) as listening:
            assert await listening.next()
        for one in (client, listener):
            await one.http.aclose()

    async def leave(self) -> None:
        """Revoke the grant, and knock once more."""
        token = {"token": self.tokens["refresh_token"]}
        assert (await self.visitor.client.post("/oauth/revoke", data={**self.credentials, **token})).status_code == 200
        refused = await self.visitor.client.post(
            "/oauth/token", data={**self.credentials, "grant_type": "refresh_token", "refresh_token": token["token"]}
        )
        assert refused.json()["error"] == "invalid_grant"

    async def _token(self, **fields: str) -> None:
        answer = await self.visitor.client.post("/oauth/token", data={**self.credentials, **fields})
        self.tokens = answer.json()
        refresh_token = self.tokens["refresh_token"]
        canaries = self.visitor.canaries
        canaries.add("assistant's access token", self.tokens["access_token"])
        canaries.add("assistant's refresh token", refresh_token, refresh_token[:43], refresh_token[43:])

    def _client(self, *, noted: bool) -> Client:
        client = Client(self.visitor.url, self.tokens["access_token"])
        if noted:
            client.http.event_hooks = {"response": [self._note]}
        return client

    async def _note(self, answer: httpx.Response) -> None:
        await self.visitor.note(answer)
