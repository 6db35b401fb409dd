"""The wiring: options in, a running server out. Copy this file first."""

from __future__ import annotations

import inspect
import logging
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pymongo
from motor.motor_asyncio import AsyncIOMotorClient
from pymongo import AsyncMongoClient
from tornado.web import Application

from tornado_sse_auth import (
    EventLog,
    Identity,
    IdentityMapper,
    Keyring,
    MemoryEventLog,
    MemorySessionStore,
    MongoEventLog,
    MongoSessionStore,
    NotFoundHandler,
    OAuthProvider,
    Secret,
    SessionStore,
    SSEAuthenticationMiddleware,
    StatsDMetrics,
    default_identity_mapper,
)
from tornado_sse_auth.authorization_server import AuthorizationServer
from tornado_sse_auth.mcp import MCPEndpoint

from .content import ContentFolder, ContentWatch
from .dashboard import SCOPE as DASHBOARD_SCOPE
from .dashboard import Dashboard, DashboardEventsHandler
from .demo_provider import DemoProvider
from .events import EventsHandler, MeHandler, PublishHandler, Ticker
from .options import SampleOptions
from .pages import STATIC, ChartLibraryHandler, DashboardHandler, PageHandler, StaticHandler
from .tools import build_mcp_server, watch_content

__all__ = ["Sample", "build_sample", "running_dashboard", "sample_application"]

_log = logging.getLogger(__name__)
DEMO_CLIENT = "sample"
CLOSE_TIMEOUT = 1.0
# What MCP clients may be allowed, in the words of the consent page.
SCOPES = {"content:read": "search and read the content", "events:write": "publish events in your name"}


@dataclass(frozen=True, slots=True)
class Sample:
    """The server's parts while it runs. `where` says where each of them is, for the person at the terminal. `watch`
    tells MCP clients what changes in the content, once one process has started it."""

    application: Application
    auth: SSEAuthenticationMiddleware
    demo: DemoProvider | None
    watch: ContentWatch
    where: tuple[tuple[str, str], ...]


@asynccontextmanager
async def build_sample(options: SampleOptions) -> AsyncIterator[Sample]:
    """Everything but the listening socket, started; closed in the opposite order at the end of the block."""
    async with AsyncExitStack() as stack:
        demo = None if options.issuer else await _demo_provider(options, stack)
        store, events, storage = _storage(options, stack)
        metrics = (
            StatsDMetrics(*options.statsd, prefix=options.statsd_prefix, instance=options.statsd_instance)
            if options.statsd
            else None
        )
        auth = SSEAuthenticationMiddleware(
            store,
            _provider(options, demo),
            public_url=options.public_url,
            events=events,
            metrics=metrics,
            identity_mapper=_granting(options.grant_scopes),
            subscription_levels=("free", "pro"),
            allowed_hosts=options.allowed_hosts,
            allowed_origins=options.allowed_origins,
            trusted_proxies=options.trusted_proxies,
            session_ttl=options.session_ttl,
            idle_ttl=options.idle_ttl,
            access_token_ttl=options.access_token_ttl,
            refresh_interval=options.refresh_interval,
            max_streams=options.max_streams,
            max_streams_per_user=options.max_streams_per_user,
        )
        ticker = Ticker()
        await auth.start()
        stack.push_async_callback(auth.close)
        ticker.start()
        stack.callback(ticker.stop)
        dashboard = stack.enter_context(running_dashboard(auth))
        content = ContentFolder()
        endpoint = MCPEndpoint(await build_mcp_server(auth, content), auth=auth)
        watch = watch_content(content, endpoint.bus)
        stack.push_async_callback(watch.close)
        # At the demo provider everybody is anybody: no scope of its would keep anyone out.
        watchers = frozenset() if demo else frozenset((DASHBOARD_SCOPE,))
        application = sample_application(auth, ticker, dashboard, endpoint, watchers=watchers)
        provider = f"{demo.issuer} (DEMO: anybody signs in as anybody)" if demo else options.issuer
        statsd = f"StatsD at {options.statsd[0]}:{options.statsd[1]}" if options.statsd else "not sent"
        where = (("sessions", storage), ("provider", provider), ("timings", statsd))
        yield Sample(application, auth, demo, watch, where)


def sample_application(
    auth: SSEAuthenticationMiddleware,
    ticker: Ticker,
    dashboard: Dashboard,
    endpoint: MCPEndpoint,
    *,
    watchers: frozenset[str],
) -> Application:
    """Which path is whose. `watchers`: the scopes that the dashboard asks for."""
    return Application(
        [
            (r"/", PageHandler),
            (r"/dashboard", DashboardHandler),
            (r"/dashboard/events", DashboardEventsHandler, {"dashboard": dashboard, "scopes": watchers}),
            (r"/static/library/chart\.js", ChartLibraryHandler),
            (r"/static/(.*)", StaticHandler, {"path": str(STATIC)}),
            (r"/events", EventsHandler, {"ticker": ticker}),
            (r"/publish", PublishHandler),
            (r"/me", MeHandler),
            *endpoint.routes(),
            *auth.routes(),
            *AuthorizationServer(auth, resources=("/mcp", "/sse"), scopes=SCOPES).routes(),
        ],
        sse_auth=auth,
        default_handler_class=NotFoundHandler,
        log_function=_log_request,
    )


@contextmanager
def running_dashboard(auth: SSEAuthenticationMiddleware) -> Iterator[Dashboard]:
    """A dashboard that looks, and hears the audit log, as long as the block lasts."""
    dashboard = Dashboard(auth)
    audit = logging.getLogger("tornado_sse_auth.audit")
    audit.addHandler(dashboard.trail)
    dashboard.start()
    try:
        yield dashboard
    finally:
        dashboard.stop()
        audit.removeHandler(dashboard.trail)


async def _demo_provider(options: SampleOptions, stack: AsyncExitStack) -> DemoProvider:
    demo = DemoProvider(
        client_id=DEMO_CLIENT,
        client_secret=Secret.random(),
        redirect_uris=[f"{options.public_url}/auth/callback"],
    )
    await demo.start()
    stack.push_async_callback(demo.close)
    return demo


def _provider(options: SampleOptions, demo: DemoProvider | None) -> OAuthProvider:
    if demo is not None:
        return OAuthProvider(
            issuer=demo.issuer, client_id=DEMO_CLIENT, client_secret=demo.client_secret, scopes=options.scopes
        )
    return OAuthProvider(
        issuer=options.issuer,
        client_id=options.client_id,
        client_secret=options.client_secret if options.client_secret else None,
        scopes=options.scopes,
    )


def _storage(options: SampleOptions, stack: AsyncExitStack) -> tuple[SessionStore, EventLog, str]:
    if not options.mongodb_uri:
        return MemorySessionStore(), MemoryEventLog(), "in memory: they end with this process"
    uri, name = options.mongodb_uri.reveal(), options.mongodb_database
    if options.encryption_keys:
        keyring = Keyring.from_base64(options.encryption_keys.reveal())
    else:
        keyring = Keyring.generate()
        _log.warning("no --encryption-keys: token sets stored now cannot be opened after a restart")
    database: Any
    if options.mongodb_driver == "motor":
        client: Any = AsyncIOMotorClient(uri)
    else:
        client = AsyncMongoClient(uri)
    stack.push_async_callback(_close, client)
    database = client[name]
    where = f"MongoDB, database {name}, driver {options.mongodb_driver}"
    return MongoSessionStore(database, keyring), MongoEventLog(database), where


async def _close(client: Any) -> None:
    """A driver says good-bye to the server, which may be frozen, and would wait for half a minute."""
    with pymongo.timeout(CLOSE_TIMEOUT):
        closing = client.close()
        if inspect.isawaitable(closing):  # Motor's is done when it returns
            await closing


def _granting(scopes: frozenset[str]) -> IdentityMapper:
    """The default mapper, with `scopes` given to everybody."""

    def mapper(claims: Mapping[str, Any], granted: frozenset[str]) -> Identity:
        identity = default_identity_mapper(claims, granted)
        return replace(identity, scopes=identity.scopes | scopes)

    return mapper


def _log_request(handler: Any) -> None:
    _log.debug("%s %s %d", handler.request.method, handler.request.path, handler.get_status())
