"""The sample's page on its real parts, with upstream tokens that live seconds: a demo provider, a session store in
memory, the middleware, the sample's own handlers."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application

from sample_server.demo_provider import DemoProvider
from sample_server.events import EventsHandler, MeHandler, PublishHandler, Ticker
from sample_server.pages import STATIC, PageHandler, StaticHandler
from tornado_sse_auth import MemorySessionStore, OAuthProvider, Secret, SSEAuthenticationMiddleware

SCOPES = "openid offline_access profile content:read events:write"


@asynccontextmanager
async def sample_page(*, access_token_ttl: float) -> AsyncIterator[str]:
    """Serve it on a free loopback port; gives its URL. `access_token_ttl`: seconds the provider's tokens live."""
    sockets = bind_sockets(0, "127.0.0.1", family=socket.AF_INET)
    url = f"http://127.0.0.1:{sockets[0].getsockname()[1]}"
    demo = DemoProvider(
        client_id="sample",
        client_secret=Secret.random(),
        redirect_uris=[f"{url}/auth/callback"],
        access_token_ttl=access_token_ttl,
    )
    await demo.start()
    provider = OAuthProvider(issuer=demo.issuer, client_id="sample", client_secret=demo.client_secret, scopes=SCOPES)
    auth = SSEAuthenticationMiddleware(MemorySessionStore(), provider, public_url=url)
    ticker = Ticker()
    application = Application(
        [
            (r"/", PageHandler),
            (r"/static/(.*)", StaticHandler, {"path": str(STATIC)}),
            (r"/events", EventsHandler, {"ticker": ticker}),
            (r"/publish", PublishHandler),
            (r"/me", MeHandler),
            *auth.routes(),
        ],
        sse_auth=auth,
        log_function=lambda handler: None,
    )
    server = HTTPServer(application, **auth.http_server_options())
    server.add_sockets(sockets)
    try:
        await auth.start()
        ticker.start()
        yield url
    finally:
        ticker.stop()
        await auth.close()
        server.stop()
        await server.close_all_connections()
        await demo.close()
