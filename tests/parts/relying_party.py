"""The least of an application that signs its users in, to try a provider by itself."""

from __future__ import annotations

import base64
import hashlib
import secrets
from contextlib import AsyncExitStack
from typing import Any, Self
from urllib.parse import urlencode

import httpx
from tornado.web import Application, RequestHandler

from tests.parts.provider import Provider, SignedIn, sign_in
from tests.parts.scripted_provider import ScriptedProvider
from tests.parts.web_server import listening


class RelyingParty:
    """The least of an application that signs its users in: /auth/login and /auth/callback on a port of its own."""

    def __init__(self, server: Provider | ScriptedProvider) -> None:
        self.issuer = server.issuer
        self.auth = (server.client_id, server.client_secret)
        self.verifier = secrets.token_urlsafe(48)
        self.nonce = secrets.token_urlsafe(16)
        self.tokens: dict[str, Any] = {}
        """The token answer of the last sign-in."""
        self.origin = ""
        self._serving = AsyncExitStack()

    @property
    def redirect_uri(self) -> str:
        """Where the provider sends the browser back to."""
        return f"{self.origin}/auth/callback"

    async def __aenter__(self) -> Self:
        application = Application([("/auth/login", _Login), ("/auth/callback", _Callback)], party=self)
        self.origin = await self._serving.enter_async_context(listening(application))
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._serving.aclose()

    async def metadata(self) -> dict[str, Any]:
        """The provider's discovery document."""
        async with httpx.AsyncClient() as client:
            answer = await client.get(f"{self.issuer}/.well-known/openid-configuration")
            return dict(answer.json())

    async def token(self, **form: str) -> httpx.Response:
        """A call of the token endpoint, authenticated by the client's secret."""
        async with httpx.AsyncClient(auth=self.auth) as client:
            return await client.post((await self.metadata())["token_endpoint"], data=form)

    async def sign_in(self, account: str) -> SignedIn:
        """Sign an account in; the tokens are then in `tokens`."""
        return await sign_in(f"{self.origin}/auth/login", account=account)

    async def refresh(self, refresh_token: str) -> httpx.Response:
        """Present a refresh token."""
        return await self.token(grant_type="refresh_token", refresh_token=refresh_token)


class _Login(RequestHandler):
    async def get(self) -> None:
        party: RelyingParty = self.settings["party"]
        challenge = base64.urlsafe_b64encode(hashlib.sha256(party.verifier.encode()).digest()).rstrip(b"=").decode()
        query = {
            "response_type": "code",
            "client_id": party.auth[0],
            "redirect_uri": party.redirect_uri,
            "scope": "openid offline_access profile content:read",
            "code_challenge": challenge,
            "code_challenge_method": "S256",
            "nonce": party.nonce,
            "state": "s",
            # Without it a provider gives no refresh token for offline_access.
            "prompt": "consent",
            "login_hint": self.get_argument("login_hint"),
        }
        self.redirect((await party.metadata())["authorization_endpoint"] + "?" + urlencode(query))


class _Callback(RequestHandler):
    async def get(self) -> None:
        party: RelyingParty = self.settings["party"]
        code = self.get_argument("code")
        answer = await party.token(
            grant_type="authorization_code", code=code, redirect_uri=party.redirect_uri, code_verifier=party.verifier
        )
        party.tokens = answer.json()
        self.set_cookie("who", "me")
        self.redirect("/")
