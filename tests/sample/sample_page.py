"""The sample's pages on their real parts, with upstream tokens that live seconds: a demo provider, a session store in
memory, the middleware, the sample's own application."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application

from sample_server.application import running_dashboard, sample_application
from sample_server.content import ContentFolder
from sample_server.demo_provider import DemoProvider
from sample_server.events import Ticker
from sample_server.tools import build_mcp_server
from tornado_sse_auth import MemorySessionStore, OAuthProvider, Secret, SessionStore, SSEAuthenticationMiddleware
from tornado_sse_auth.mcp import MCPEndpoint

SCOPES = "openid offline_access profile content:read events:write"


@dataclass(frozen=True)
class RunningSample:
    """Where it is, and what it consists of."""

    url: str
    auth: SSEAuthenticationMiddleware
    application: Application


@asynccontextmanager
async def sample_page(**options: Any) -> AsyncIterator[str]:
    """Serve them as `running_sample` does; gives their URL."""
    async with running_sample(**options) as sample:
        yield sample.url


@asynccontextmanager
async def running_sample(
    *,
    access_token_ttl: float = 300,
    watchers: frozenset[str] = frozenset(),
    store: SessionStore | None = None,
    **options: Any,
) -> AsyncIterator[RunningSample]:
    """Serve them on a free loopback port. `access_token_ttl`: seconds the provider's tokens live; `watchers`: the
    scopes that the dashboard asks for; `store`: another than one in memory; `options` are the middleware's."""
    sockets = bind_sockets(0, "127.0.0.1", family=socket.AF_INET)
    url = f"http://127.0.0.1:{sockets[0].getsockname()[1]}"
    demo = DemoProvider(
        client_id="sample",
        client_secret=Secret.random(),
        redirect_uris=[f"{url}/auth/callback"],
        access_token_ttl=access_token_ttl,
    )
    async with AsyncExitStack() as stack:
        await demo.start()
        stack.push_async_callback(demo.close)
        provider = OAuthProvider(
            issuer=demo.issuer, client_id="sample", client_secret=demo.client_secret, scopes=SCOPES
        )
        auth = SSEAuthenticationMiddleware(store or MemorySessionStore(), provider, public_url=url, **options)
        await auth.start()
        stack.push_async_callback(auth.close)
        ticker = Ticker()
        ticker.start()
        stack.callback(ticker.stop)
        dashboard = stack.enter_context(running_dashboard(auth))
        endpoint = MCPEndpoint(await build_mcp_server(auth, ContentFolder()), auth=auth)
        application = sample_application(auth, ticker, dashboard, endpoint, watchers=watchers)
        server = HTTPServer(application, **auth.http_server_options())
        server.add_sockets(sockets)
        stack.push_async_callback(server.close_all_connections)
        stack.callback(server.stop)
        yield RunningSample(url, auth, application)
