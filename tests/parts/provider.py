"""A real, certified OpenID provider (npm oidc-provider) and a browser that signs in at it.

Whoever `login_hint` names is signed in without a person. Refresh tokens rotate, and the second use of one revokes the
whole grant: the provider is the judge of every refresh race.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from tests.parts.node import SCRIPTS, find_node, placed
from tests.parts.process import ServerProcess, free_port

SCOPES = ("openid", "offline_access", "profile", "email", "content:read", "events:write", "mcp:tools")
_MAX_REDIRECTS = 20


def check_available() -> None:
    """Raises MissingPartError where Node.js or the npm packages are not to be had."""
    placed(SCRIPTS / "oidc-provider.mjs")
    find_node()


@dataclass(frozen=True, kw_only=True)
class ProviderStats:
    """What the provider has seen since its start."""

    token_calls: int
    refreshes: dict[str, int]
    """Successful refreshes by account."""
    last_rotation: dict[str, float]
    """Wall-clock time of the last one by account, seconds since the epoch."""
    errors: dict[str, int]
    """Refused token calls by error code."""
    reuses: dict[str, int]
    """Refresh tokens that were presented a second time, by account; each ended its grant."""
    grants_revoked: int
    """Grants ended because a refresh token or code was presented twice, or was revoked by the client."""


class Provider(ServerProcess):
    """The running provider. It keeps everything in memory: a restart forgets accounts, sessions and grants."""

    client_id = "app"
    client_secret = "app-secret-app-secret-app-secret"

    def __init__(
        self,
        *,
        access_ttl: int = 600,
        refresh_ttl: int = 86_400,
        redirect_uris: Sequence[str] = (),
        scopes: Sequence[str] = SCOPES,
        backchannel_logout_uri: str | None = None,
    ) -> None:
        """Lives in seconds; more redirect URIs may be added while it runs."""
        port = free_port()
        self.issuer = f"http://127.0.0.1:{port}"
        options = {
            "port": port,
            "clientId": self.client_id,
            "clientSecret": self.client_secret,
            "redirectUris": list(redirect_uris) or ["http://127.0.0.1:8000/auth/callback"],
            "scopes": list(scopes),
            "accessTtl": access_ttl,
            "refreshTtl": refresh_ttl,
            "backchannelLogoutUri": backchannel_logout_uri,
        }
        command: list[Path | str] = [find_node(), placed(SCRIPTS / "oidc-provider.mjs"), json.dumps(options)]

        def ready(server: ServerProcess) -> None:
            server.wait_for_port(port)

        super().__init__("oidc-provider", command, ready=ready)

    async def stats(self) -> ProviderStats:
        """What it has seen so far."""
        seen = await self._control("GET", "stats")
        return ProviderStats(
            token_calls=seen["tokenCalls"],
            refreshes=seen["refreshes"],
            last_rotation=seen["lastRotation"],
            errors=seen["errors"],
            reuses=seen["reuses"],
            grants_revoked=seen["grantsRevoked"],
        )

    async def add_redirect_uri(self, uri: str) -> None:
        """Let the client use one more redirect URI."""
        await self._control("POST", "redirect-uri", {"uri": uri})

    async def change_account(self, sub: str, **change: Any) -> None:
        """Replace `claims` (a dict), `scope` (the most it is given, a string) or `access_ttl` (seconds) of an account.

        Tokens issued from now on, by a sign-in or a refresh, show the change.
        """
        await self._control("POST", "account", {"sub": sub}, change)

    async def revoke_account(self, sub: str) -> int:
        """End all grants of an account, as an administrator would; gives their number."""
        return int((await self._control("POST", "revoke-account", {"sub": sub}))["revoked"])

    async def logout_account(self, sub: str) -> int:
        """Send a back-channel logout token for each session of an account; gives their number."""
        return int((await self._control("POST", "backchannel-logout", {"sub": sub}))["notified"])

    async def _control(
        self, method: str, action: str, query: dict[str, str] | None = None, body: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        async with httpx.AsyncClient(base_url=self.issuer, timeout=15, trust_env=False) as client:
            response = await client.request(method, f"/control/{action}", params=query, json=body)
        if response.status_code != 200:
            raise self.failure(f"{action}: {response.status_code} {response.text}")
        answer: dict[str, Any] = response.json()
        return answer


@contextmanager
def running(**options: Any) -> Iterator[Provider]:
    """A provider of one's own; the options are those of `Provider`."""
    with Provider(**options) as provider:
        yield provider


@dataclass(frozen=True)
class SignedIn:
    """How a sign-in ended: the application's answer at its callback, or the first answer that was no redirect."""

    response: httpx.Response
    cookies: httpx.Cookies
    """The browser's whole cookie jar, the provider's session included."""


async def sign_in(
    start_url: str,
    *,
    account: str | None = None,
    cookies: httpx.Cookies | None = None,
    timeout: float = 20.0,
    verify: ssl.SSLContext | bool = True,
) -> SignedIn:
    """Play a browser from `/auth/login` through the provider and back; `account` is sent as `login_hint`, `verify` says
    whose certificates to believe.

    Ends with the answer of `/auth/callback` on the origin of `start_url`, without following it further.
    """
    start = httpx.URL(start_url)
    url = start.copy_add_param("login_hint", account) if account else start
    async with httpx.AsyncClient(cookies=cookies, timeout=timeout, trust_env=False, verify=verify) as browser:
        for _ in range(_MAX_REDIRECTS):
            response = await browser.get(url, headers={"Accept": "text/html"})
            at_callback = url.path.endswith("/auth/callback") and _origin(url) == _origin(start)
            if at_callback or not response.has_redirect_location:
                return SignedIn(response, browser.cookies)
            url = response.url.join(response.headers["location"])
    raise AssertionError(f"more than {_MAX_REDIRECTS} redirects, the last to {urlsplit(str(url)).path}")


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port
