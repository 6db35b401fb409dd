"""An application as a user of the package writes it, on a socket of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, HTTPError, RequestHandler

from tests.parts.scripted_provider import ScriptedProvider
from tests.parts.sse_client import SSEClient
from tornado_sse_auth import (
    MemorySessionStore,
    NotFoundHandler,
    OAuthProvider,
    SessionStore,
    SSEAuthenticationMiddleware,
    SSEAuthMixin,
)
from tornado_sse_auth.testing import RecordingMetrics

SCOPES = "openid offline_access profile prices:read"


class Me(SSEAuthMixin, RequestHandler):
    """Who am I."""

    def get(self) -> None:
        user = self.current_user
        self.write(
            {
                "user_id": user.user_id,
                "session_id": user.session_id,
                "scopes": sorted(user.scopes),
                "subscription": user.subscription,
            }
        )

    def post(self) -> None:
        self.write({"posted": True})


class Prices(SSEAuthMixin, RequestHandler):
    """Follows a channel."""

    required_scopes = {"prices:read"}

    async def get(self) -> None:
        async with self.event_stream() as stream:
            await stream.follow("prices")


class Content(SSEAuthMixin, RequestHandler):
    """Follows another channel, for everybody."""

    async def get(self) -> None:
        async with self.event_stream() as stream:
            await stream.follow("content")


class Upstream(SSEAuthMixin, RequestHandler):
    """Shows the end of the upstream token, which no real handler does."""

    async def get(self) -> None:
        token = await self.upstream_access_token(min_ttl=float(self.get_argument("min_ttl", "30")))
        self.write({"token": token.reveal()})


class Demanding(SSEAuthMixin, RequestHandler):
    """Asks for more than there is, by the path."""

    def get(self, what: str) -> None:
        demands: dict[str, Any] = {
            "scope": {"scopes": {"a:read", "b:read"}},
            "permission": {"permissions": {"trade"}},
            "subscription": {"subscription": "pro"},
            "typo": {"subscription": "platinum"},
        }
        self.require(**demands[what])
        self.write({"passed": what})


class Late(SSEAuthMixin, RequestHandler):
    """Asks for a scope that is known only when the application is put together, and has errors of its own."""

    def initialize(self, scope: str) -> None:
        self.required_scopes = {scope}

    def get(self) -> None:
        status = int(self.get_argument("status"))
        if self.get_argument("how", "raise") == "raise":
            raise HTTPError(status)
        self.send_error(status)


class Broken(SSEAuthMixin, RequestHandler):
    """Our own fault."""

    def get(self) -> None:
        raise RuntimeError("canary-detail-of-our-own")


@dataclass(frozen=True)
class Running:
    """The server, and ways to talk to it."""

    url: str
    auth: SSEAuthenticationMiddleware
    metrics: RecordingMetrics
    server: HTTPServer

    def client(self, **more: Any) -> httpx.AsyncClient:
        """A browser without a page: keeps cookies, follows nothing by itself."""
        return httpx.AsyncClient(base_url=self.url, trust_env=False, timeout=10.0, **more)

    def stream(self, path: str, **more: Any) -> SSEClient:
        """An SSE client."""
        return SSEClient(f"{self.url}{path}", **more)

    @property
    def cookie(self) -> str:
        """The name of the session cookie."""
        return self.auth.cookie_name


def provider_at(scripted: ScriptedProvider, **options: Any) -> OAuthProvider:
    """The provider as an application is told of it."""
    return OAuthProvider(
        issuer=scripted.issuer,
        client_id=scripted.client_id,
        client_secret=scripted.client_secret,
        scopes=SCOPES,
        **options,
    )


@asynccontextmanager
async def serve(
    store: SessionStore | None = None,
    provider: OAuthProvider | None = None,
    *,
    handlers: Sequence[Any] = (),
    rules: Callable[[SSEAuthenticationMiddleware], Sequence[Any]] = lambda auth: (),
    port: int = 0,
    **options: Any,
) -> AsyncIterator[Running]:
    """A started middleware and a listening application around it."""
    sockets = bind_sockets(port, "127.0.0.1")
    url = f"http://127.0.0.1:{sockets[0].getsockname()[1]}"
    metrics = RecordingMetrics()
    auth = SSEAuthenticationMiddleware(
        store or MemorySessionStore(),
        provider,
        public_url=options.pop("public_url", url),
        metrics=options.pop("metrics", metrics),
        subscription_levels=("free", "pro"),
        drain_timeout=options.pop("drain_timeout", 0.2),
        **options,
    )
    await auth.start()
    application = Application(
        [
            (r"/me", Me),
            (r"/prices", Prices),
            (r"/content", Content),
            (r"/upstream", Upstream),
            (r"/demand/(.*)", Demanding),
            (r"/broken", Broken),
            (r"/late", Late, {"scope": "late:read"}),
            *handlers,
            *rules(auth),
            *auth.routes(),
        ],
        sse_auth=auth,
        default_handler_class=NotFoundHandler,
    )
    server = HTTPServer(application, **auth.http_server_options())
    server.add_sockets(sockets)
    try:
        yield Running(url, auth, metrics, server)
    finally:
        await auth.close()
        server.stop()
        await asyncio.wait_for(server.close_all_connections(), 5)
