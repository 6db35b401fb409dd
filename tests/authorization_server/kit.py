"""A server with protected resources, the browser of its user, and installations of clients."""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from html import unescape
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
from tornado.web import RequestHandler

from tests.scenarios.server import Running, serve
from tornado_sse_auth import OAuthProvider, Session, SessionStore, SSEAuthenticationMiddleware, SSEAuthMixin
from tornado_sse_auth.authorization_server import AuthorizationServer, Client, MetadataDocuments
from tornado_sse_auth.testing import ManualClock

SCOPES = {"content:read": "read the content", "events:write": "publish events"}
ALL = frozenset(SCOPES)
REDIRECT = "http://127.0.0.1:33418/callback"


class Resource(SSEAuthMixin, RequestHandler):
    """Who calls, and through which grant."""

    def initialize(self, resource: str) -> None:
        self.resource = resource  # type: ignore[misc]

    def get(self) -> None:
        grant = self.authenticated.grant
        self.write(
            {
                "user_id": self.current_user.user_id,
                "session_id": self.current_user.session_id,
                "scopes": sorted(self.current_user.scopes),
                "grant": grant.id if grant is not None else None,
            }
        )


class Stream(SSEAuthMixin, RequestHandler):
    """A stream of the resource /mcp."""

    resource = "/mcp"

    async def get(self) -> None:
        if scope := self.get_query_argument("scope", None):
            self.require(scopes={scope})
        async with self.event_stream() as stream:
            await stream.follow("news")


@dataclass
class World:
    """The server as its clients and users see it."""

    app: Running
    http: httpx.AsyncClient
    browsers: list[Browser] = field(default_factory=list)

    @property
    def url(self) -> str:
        """The public URL, which is the issuer; another process has it too."""
        return self.app.auth.options.public_url

    @property
    def clock(self) -> ManualClock:
        """The injected one."""
        clock = self.app.auth.clock
        assert isinstance(clock, ManualClock)
        return clock

    @property
    def auth(self) -> SSEAuthenticationMiddleware:
        return self.app.auth

    @asynccontextmanager
    async def program(self) -> AsyncIterator[httpx.AsyncClient]:
        """A client's HTTP client; none of the server's answers to it sets a cookie."""
        yield self.http
        assert not self.http.cookies

    async def signed_in(self, user_id: str = "https://issuer|alice", scopes: Iterable[str] = ALL) -> Browser:
        """A browser with a session that nobody had to sign in for."""
        session, cookie = await self.auth.sessions.create(
            user_id=user_id, scopes=scopes, claims={"email": f"{user_id.rpartition('|')[2]}@users.example"}
        )
        browser = self.browser()
        browser.http.cookies.set(self.app.cookie, cookie.reveal())
        browser.session_id = session.id
        return browser

    def browser(self) -> Browser:
        """A browser of nobody yet."""
        browser = Browser(self, self.app.client(headers={"Accept": "text/html"}, verify=False))
        self.browsers.append(browser)
        return browser

    async def session(self, session_id: str) -> Session:
        found = await self.auth.sessions.find(session_id)
        assert found is not None
        return found

    async def installation(self, browser: Browser | None = None, **more: Any) -> Installation:
        """An installation that has been given its first tokens; `browser` is its user's."""
        installed = Installation(self, **more)
        await installed.register()
        await installed.connect(browser or await self.signed_in())
        return installed


@dataclass
class Browser:
    """Follows redirects within the server and its provider, keeps cookies, presses buttons."""

    world: World
    http: httpx.AsyncClient
    session_id: str = ""

    async def open(self, url: str, **params: str) -> httpx.Response:
        """The first answer that is a page, or leaves for somewhere that is no web server of the test."""
        response = await self.http.get(url, params=params or None)
        for _ in range(20):
            location = response.headers.get("Location")
            if location is None or not self._reachable(location):
                return response
            response = await self.http.get(httpx.URL(response.url).join(location))
        raise AssertionError(f"too many redirects, the last to {response.url}")

    async def press(self, page: httpx.Response, decision: str = "allow", **headers: str) -> httpx.Response:
        """Press a button of the consent page; the answer is not followed."""
        assert page.status_code == 200, page.text
        fields = form_of(page.text)
        headers.setdefault("Origin", self.world.url)
        return await self.http.post("/oauth/authorize", data={**fields, "decision": decision}, headers=headers)

    def forget_the_provider(self) -> None:
        """Leave the provider without its page for that, which needs a script: all cookies but the server's go."""
        for cookie in list(self.http.cookies.jar):
            if not cookie.name.startswith(self.world.app.cookie):
                self.http.cookies.jar.clear(cookie.domain, cookie.path, cookie.name)

    def _reachable(self, location: str) -> bool:
        url = httpx.URL(self.world.app.url).join(location)
        return url.scheme == "http" and url.port not in (None, 33418, 33419)


def form_of(page: str) -> dict[str, str]:
    """The hidden fields of the one form."""
    forms = re.findall(r'<form method="post" action="/oauth/authorize">(.*?)</form>', page, re.DOTALL)
    assert len(forms) == 1
    assert page.count("<form") == 1
    assert re.findall(r'<button name="decision" value="(\w+)">', forms[0]) == ["allow", "deny"]
    return {
        name: unescape(value)
        for name, value in re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', forms[0])
    }


def answer_of(response: httpx.Response) -> dict[str, str]:
    """The parameters that a redirect brings to the client; each came once."""
    assert response.status_code in (302, 303), response.text
    query = parse_qs(urlsplit(response.headers["Location"]).query, keep_blank_values=True)
    assert all(len(values) == 1 for values in query.values()), query
    return {name: values[0] for name, values in query.items()}


@dataclass
class Installation:
    """One installation of a client, with its tokens. Writes down every refresh token it was given."""

    world: World
    client_id: str = ""
    client_secret: str | None = None
    redirect_uri: str = REDIRECT
    metadata: dict[str, Any] = field(default_factory=dict)
    scope: str | None = None
    resource: str | None = None
    verifier: str = field(default_factory=lambda: secrets.token_urlsafe(48))
    state: str = field(default_factory=lambda: secrets.token_urlsafe(8))
    tokens: dict[str, Any] = field(default_factory=dict)

    async def register(self, **metadata: Any) -> dict[str, Any]:
        """Register; gives the answer."""
        document = {
            "client_name": "Editor",
            "redirect_uris": [self.redirect_uri],
            "token_endpoint_auth_method": "none",
            **self.metadata,
            **metadata,
        }
        async with self.world.program() as http:
            response = await http.post("/oauth/register", json=document)
        assert response.status_code == 201, response.text
        answer: dict[str, Any] = response.json()
        self.client_id, self.client_secret = answer["client_id"], answer.get("client_secret")
        return answer

    def query(self, **more: str | None) -> dict[str, str]:
        """The authorization request; None takes a parameter out."""
        digest = hashlib.sha256(self.verifier.encode()).digest()
        query: dict[str, str | None] = {
            "response_type": "code",
            "client_id": self.client_id,
            "redirect_uri": self.redirect_uri,
            "code_challenge": base64.urlsafe_b64encode(digest).rstrip(b"=").decode(),
            "code_challenge_method": "S256",
            "state": self.state,
            "scope": self.scope,
            "resource": self.resource,
            **more,
        }
        return {name: value for name, value in query.items() if value is not None}

    async def code(self, browser: Browser, **more: str | None) -> str:
        """A code, after the user has agreed."""
        page = await browser.open("/oauth/authorize", **self.query(**more))
        answer = answer_of(await browser.press(page))
        assert answer.keys() == {"code", "state", "iss"}, answer
        assert (answer["state"], answer["iss"]) == (self.state, self.world.url)
        return answer["code"]

    async def connect(self, browser: Browser, **more: str | None) -> dict[str, Any]:
        """The whole way to the first tokens."""
        response = await self.exchange(await self.code(browser, **more))
        assert response.status_code == 200, response.text
        self.tokens = response.json()
        return self.tokens

    async def exchange(self, code: str, **more: str | None) -> httpx.Response:
        """Present a code."""
        fields = {"grant_type": "authorization_code", "code": code, "redirect_uri": self.redirect_uri}
        return await self.call(**{**fields, "code_verifier": self.verifier, **more})

    async def refresh(self, token: str | None = None, **more: str | None) -> httpx.Response:
        """Present a refresh token, the last one where none is given; a good answer's tokens are kept."""
        presented = self.tokens["refresh_token"] if token is None else token
        response = await self.call(**{"grant_type": "refresh_token", "refresh_token": presented, **more})
        if response.status_code == 200:
            self.tokens = response.json()
        return response

    async def call(self, path: str = "/oauth/token", **fields: str | None) -> httpx.Response:
        """A call of an endpoint as this client; None takes a field out."""
        named: dict[str, str | None] = {"client_id": self.client_id, "client_secret": self.client_secret, **fields}
        async with self.world.program() as http:
            return await http.post(path, data={name: value for name, value in named.items() if value is not None})

    async def get(self, path: str = "/mcp", token: str | None = None) -> httpx.Response:
        """Use the access token."""
        bearer = self.tokens["access_token"] if token is None else token
        async with self.world.program() as http:
            return await http.get(path, headers={"Authorization": f"Bearer {bearer}"})

    async def grant_id(self) -> str:
        return str((await self.get()).json()["grant"])


@asynccontextmanager
async def world(
    store: SessionStore | None = None,
    provider: OAuthProvider | None = None,
    *,
    clients: Iterable[Client] = (),
    documents: MetadataDocuments | None = None,
    max_clients: int = 10_000,
    **options: Any,
) -> AsyncIterator[World]:
    """A running server."""

    def rules(auth: SSEAuthenticationMiddleware) -> list[Any]:
        server = AuthorizationServer(
            auth,
            resources=("/mcp", "/sse"),
            scopes=SCOPES,
            clients=clients,
            documents=documents,
            max_clients=max_clients,
        )
        return server.routes()

    handlers = [
        (r"/mcp", Resource, {"resource": "/mcp"}),
        (r"/sse", Resource, {"resource": "/sse"}),
        (r"/stream", Stream),
    ]
    async with serve(store, provider, handlers=handlers, rules=rules, **options) as app, AsyncExitStack() as stack:
        running = World(app, await stack.enter_async_context(app.client(verify=False)))
        try:
            yield running
        finally:
            for browser in running.browsers:
                await browser.http.aclose()
