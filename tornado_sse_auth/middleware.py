"""The composition root: builds the parts from a store, a provider and options, starts them, and closes them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AsyncExitStack
from ipaddress import ip_network
from typing import Any
from urllib.parse import urlsplit

from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPServerRequest

from .audit import AuditLog
from .clock import Clock, SystemClock
from .errors import (
    AuthenticationRequiredError,
    ConfigurationError,
    ExpiredTokenError,
    InvalidTokenError,
    ReauthorizationRequiredError,
)
from .events import EventLog, MemoryEventLog
from .health import Check, Health, LoopLag, process_checks, provider_checks, store_checks
from .identity import CredentialKind, Secret, Session, SessionState, UserContext
from .metrics import Metrics, NullMetrics
from .oauth import BearerVerifier, IdentityMapper, OAuthProvider, default_identity_mapper
from .observations import Observations
from .options import DAY, Options
from .periodic import MonotonicPeriodicCallback
from .refresh import RefreshManager
from .sessions.credentials import PresentedCredential, cookie_name, read_bearer, read_cookie
from .sessions.manager import SessionManager
from .sessions.token_refresh import TokenRefresher
from .stores import SessionStore
from .streams import ChannelHub, StreamRegistry
from .web import routes
from .web.bounded_server import BoundedHTTPServer
from .web.guards import PeerLimiter, RequestGuard
from .web.http_log import MalformedRequestFilter

__all__ = ["SSEAuthenticationMiddleware"]

_log = logging.getLogger(__name__)

GAUGE_INTERVAL = 10.0
NOTICE = 0.2  # of drain_timeout, for load balancers to see that readiness is gone
WRITE_GRACE = 2.0  # seconds beyond a caller's time-out that a refresh may take to be written at shutdown


class SSEAuthenticationMiddleware:
    """Everything between a Tornado application and its users' sessions.

    Make one, `await start()` it, put it into `Application(routes, sse_auth=auth)`, and `await close()` it. Options are
    those of `Options`; times in seconds, sizes in bytes. Raises `ConfigurationError` for what cannot work. The
    middleware starts and closes `store`, `provider`, `bearer_verifiers`, `events` and `metrics`; a database client
    belongs to the caller.
    What it measured in the last minutes is in `observations`, whether or not `metrics` are sent anywhere.
    """

    def __init__(
        self,
        store: SessionStore,
        provider: OAuthProvider | None = None,
        *,
        public_url: str,
        events: EventLog | None = None,
        metrics: Metrics | None = None,
        identity_mapper: IdentityMapper = default_identity_mapper,
        clock: Clock | None = None,
        subscription_levels: Iterable[str] = (),
        bearer_verifiers: Iterable[BearerVerifier] = (),
        allowed_hosts: Iterable[str] = (),
        allowed_origins: Iterable[str] = (),
        trusted_proxies: Iterable[str] = (),
        session_ttl: float = 30 * DAY,
        idle_ttl: float = 14 * DAY,
        access_token_ttl: float = 600.0,
        session_cache_ttl: float = 5.0,
        session_cache_size: int = 100_000,
        refresh_fraction: float = 0.9,
        refresh_interval: float = 1.0,
        refresh_concurrency: int = 10,
        reauthorization_grace: float = 60.0,
        heartbeat: float = 15.0,
        max_stream_buffer: int = 262_144,
        max_streams_per_user: int = 100,
        max_streams: int | None = None,
        max_sessions_per_user: int = 50,
        max_bad_credentials: int = 100,
        max_sign_ins: int = 120,
        max_body: int = 4_194_304,
        max_headers: int = 65_536,
        max_json_depth: int = 64,
        request_timeout: float = 30.0,
        drain_timeout: float = 10.0,
    ) -> None:
        try:
            proxies = tuple(ip_network(proxy) for proxy in trusted_proxies)
        except ValueError as error:
            raise ConfigurationError(f"trusted_proxies are networks such as 10.0.0.0/8: {error}") from None
        self.options = options = Options(
            public_url=public_url,
            subscription_levels=tuple(subscription_levels),
            allowed_hosts=frozenset(allowed_hosts),
            allowed_origins=frozenset(allowed_origins),
            trusted_proxies=proxies,
            session_ttl=session_ttl,
            idle_ttl=idle_ttl,
            access_token_ttl=access_token_ttl,
            session_cache_ttl=session_cache_ttl,
            session_cache_size=session_cache_size,
            refresh_fraction=refresh_fraction,
            refresh_interval=refresh_interval,
            refresh_concurrency=refresh_concurrency,
            reauthorization_grace=reauthorization_grace,
            heartbeat=heartbeat,
            max_stream_buffer=max_stream_buffer,
            max_streams_per_user=max_streams_per_user,
            max_streams=max_streams,
            max_sessions_per_user=max_sessions_per_user,
            max_bad_credentials=max_bad_credentials,
            max_sign_ins=max_sign_ins,
            max_body=max_body,
            max_headers=max_headers,
            max_json_depth=max_json_depth,
            request_timeout=request_timeout,
            drain_timeout=drain_timeout,
        )
        self.store = store
        self.records = store.records
        self.kept = store.kept
        self.provider = provider
        self.identity_mapper = identity_mapper
        self.events = MemoryEventLog() if events is None else events
        self.clock: Clock = SystemClock() if clock is None else clock
        self.observations = Observations(NullMetrics() if metrics is None else metrics, clock=self.clock)
        self.metrics = store.metrics = self.observations
        self.audit = AuditLog(self.clock)
        if provider is not None and provider.metrics is None:
            provider.metrics = self.metrics
        self.bearer_verifiers = tuple(bearer_verifiers)
        self.protected_resources: dict[str, tuple[str, ...]] = {}
        self.authorization_servers = tuple(verifier.issuer for verifier in self.bearer_verifiers)
        parts: dict[str, Any] = {"metrics": self.metrics, "clock": self.clock, "audit": self.audit}
        self.sessions = SessionManager(store, options, revoker=provider, verifiers=self.bearer_verifiers, **parts)
        self.refresher = (
            TokenRefresher(store, provider, self.sessions, options, identity_mapper=identity_mapper, **parts)
            if provider is not None
            else None
        )
        self.refresh_manager = RefreshManager(self.refresher, self.sessions, options, clock=self.clock)
        self.registry = StreamRegistry(
            options,
            metrics=self.metrics,
            clock=self.clock,
            authorization_url=self.authorization_url,
            is_ended=self.sessions.is_ended,
            on_first=self.refresh_manager.stream_opened,
            on_last=self.refresh_manager.streams_closed,
            look_again=self.sessions.look_again,
        )
        self.hub = ChannelHub(self.events)
        self.guard = RequestGuard(options)
        self.bad_credentials = PeerLimiter(options.max_bad_credentials, self.clock)
        self.sign_ins = PeerLimiter(options.max_sign_ins, self.clock)
        self.cookie_name = cookie_name(options.secure, urlsplit(options.public_url).port)
        self._loop_lag = LoopLag(self.clock)
        self.health = Health(self._checks(), metrics=self.metrics, clock=self.clock)
        self._gauges = MonotonicPeriodicCallback(self._send_gauges, GAUGE_INTERVAL * 1000)
        self._running: AsyncExitStack | None = None
        self._on_close: list[Callable[[], Awaitable[None]]] = []
        self._closing_at: float | None = None

    # -- life ------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start all parts; what was begun is undone when one of them refuses. Raises `ConfigurationError`, and
        `StoreUnavailableError` where the store does not answer. An unreachable provider is a warning only."""
        if self._running is not None:
            raise ConfigurationError("the middleware is started already")
        async with AsyncExitStack() as stack:
            general = logging.getLogger("tornado.general")
            quotes = MalformedRequestFilter()
            general.addFilter(quotes)
            stack.callback(general.removeFilter, quotes)
            await self.store.start()
            stack.push_async_callback(self.store.close)
            await self.events.start()
            stack.push_async_callback(self.events.close)
            if self.provider is not None:
                stack.push_async_callback(self.provider.close)
                await self.provider.start()
            for verifier in self.bearer_verifiers:
                stack.push_async_callback(verifier.close)
                await verifier.start()
            stack.push_async_callback(self.sessions.close)
            stack.push_async_callback(self.hub.close)
            if self.refresher is not None:
                stack.push_async_callback(self._close_refresher, self.refresher)
            self.registry.start()
            stack.push_async_callback(self.registry.close)
            self.sessions.watch.start(self.registry, self.registry, self.refresh_manager)
            self.refresh_manager.start()
            stack.push_async_callback(self.refresh_manager.close)
            self._loop_lag.start()
            stack.callback(self._loop_lag.close)
            stack.push_async_callback(self.health.close)
            await self.health.start()
            self._closing_at = None
            self._gauges.start()
            stack.callback(self._stop_gauges)
            self._running = stack.pop_all()

    async def close(self, server: HTTPServer | None = None) -> None:
        """Drain and close: readiness goes first, then streams get `retry` and `end` over `drain_timeout`, refreshes
        under way are written. Twice is once.

        `server` stops listening before the streams are told, so that they come back elsewhere: at once (a
        `BoundedHTTPServer` in 1.25 s, within half of `drain_timeout`: it resets nobody who has connected), or after a
        fifth of `drain_timeout` where somebody watches readiness and should see it first. Its connections end with
        the next answer, or a proxy would send a request just as they are closed.
        """
        running, self._running = self._running, None
        if running is None:
            return
        self._closing_at = self.clock.monotonic()
        self.health.drain()
        if server is not None:
            server.conn_params.no_keep_alive = True
        async with AsyncExitStack() as last:
            # Not in `start`'s stack: a start that failed may be tried again, and is measured then.
            last.callback(self.metrics.close)
            await last.enter_async_context(running)
            lead = self.options.drain_timeout * NOTICE if server is not None and self.health.watched else 0.0
            if isinstance(server, BoundedHTTPServer):
                lead = max(lead, min(server.prepare_stop(), self.options.drain_timeout / 2))
            await asyncio.sleep(lead)
            if server is not None:
                server.stop()
            await self.refresh_manager.close()
            await self.registry.drain(self.options.drain_timeout - lead)
            for close in self._on_close:
                await close()

    def on_close(self, close: Callable[[], Awaitable[None]]) -> None:
        """Await `close` whenever the middleware closes: after the streams have ended, before store and events do."""
        self._on_close.append(close)

    async def _close_refresher(self, refresher: TokenRefresher) -> None:
        """What was under way when closing began gets its callers' time-out and a moment to be written, in all."""
        timeout = self.provider.timeout if self.provider is not None else 0.0
        begun = self._closing_at if self._closing_at is not None else self.clock.monotonic()
        await refresher.close(max(0.0, begun + timeout + WRITE_GRACE - self.clock.monotonic()))

    # -- for applications ------------------------------------------------------------------------------------------

    def routes(self) -> list[Any]:
        """Tornado rules for `/auth/*`, `/livez`, `/readyz`, `/health`, `/.well-known/oauth-protected-resource`."""
        return routes(self.health, sign_in=self.provider is not None)

    def protect(self, path: str, *, scopes: Iterable[str] = (), authorization_server: str | None = None) -> None:
        """Publish the metadata of a protected resource (RFC 9728): the handlers at `path`, which have it as `resource`.
        `scopes` are those worth asking for, `authorization_server` the issuer whose access tokens are good there."""
        self.protected_resources[path] = tuple(scopes)
        if authorization_server is not None and authorization_server not in self.authorization_servers:
            self.authorization_servers = (authorization_server, *self.authorization_servers)

    def http_server_options(self) -> dict[str, Any]:
        """Arguments for `Application.listen()` or `HTTPServer`: limits of body, headers and their time, which must be
        set there, because a handler's `prepare` runs after the body was read."""
        return {
            "max_body_size": self.options.max_body,
            "max_header_size": self.options.max_headers,
            "body_timeout": self.options.request_timeout,
            "idle_connection_timeout": self.options.request_timeout,
        }

    async def authenticate(self, request: HTTPServerRequest) -> UserContext:
        """The user of a request, outside a handler. Raises `AuthenticationRequiredError` and its kin,
        `InvalidRequestError`, `InvalidHostError`, `InvalidOriginError`, `RateLimitedError`, `StoreUnavailableError`."""
        self.guard.check_host(request)
        self.guard.check_origin(request)
        presented = self.presented(request)
        if presented is None:
            raise AuthenticationRequiredError(authorization_url=self.authorization_url())
        if presented.kind is CredentialKind.COOKIE:
            self.guard.check_same_origin(request)
        try:
            found = await self.sessions.validate(presented)
        except ExpiredTokenError:
            raise
        except InvalidTokenError:
            self.bad_credentials.hit(self.guard.describe(request).remote)
            raise
        session = found.session
        if session.state is SessionState.REAUTHORIZATION:
            raise ReauthorizationRequiredError(
                authorization_url=self.authorization_url(session), reason=session.reauth_reason
            )
        return found.user

    # -- for handlers ----------------------------------------------------------------------------------------------

    def presented(self, request: HTTPServerRequest) -> PresentedCredential | None:
        """The request's credential: a bearer, else the session cookie. A bad bearer is never made good by a cookie."""
        headers = request.headers
        bearer = read_bearer(headers.get_list("Authorization")) if "Authorization" in headers else None
        return bearer or read_cookie(headers.get("Cookie"), self.cookie_name)

    def authorization_url(self, session: Session | None = None) -> str | None:
        """Where to sign in: anew, or for the session that needs its user. None without a provider."""
        if self.provider is None:
            return None
        url = f"{self.options.public_url}/auth/login"
        if session is not None and session.reauth is not None:
            return f"{url}?reauth={session.reauth.reveal()}"
        return url

    def session_cookie(self, credential: Secret) -> dict[str, Any]:
        """Arguments of `RequestHandler.set_cookie` for the session cookie."""
        return {
            "name": self.cookie_name,
            "value": credential.reveal(),
            "path": "/",
            "httponly": True,
            "secure": self.options.secure,
            "samesite": "Lax",
            "max_age": int(self.options.session_ttl),
        }

    # -- what is seen from outside ---------------------------------------------------------------------------------

    def _checks(self) -> list[Check]:
        seen, clock = self.observations, self.clock
        checks = store_checks(self.store, self.events, self.sessions, seen, clock)
        if self.provider is not None and self.refresher is not None:
            checks += provider_checks(self.provider, self.refresher, seen, clock)
        return checks + process_checks(self.registry, self.refresh_manager, seen, self._loop_lag)

    def _send_gauges(self) -> None:
        self.metrics.gauge("stream.open", len(self.registry))
        self.metrics.gauge("session.active", self.registry.active_sessions)
        self.metrics.gauge("refresh.scheduled", self.refresh_manager.scheduled)
        self.metrics.gauge("refresh.lag_ms", round(1000 * max(self.refresh_manager.lag, self.refresh_manager.overdue)))

    def _stop_gauges(self) -> None:
        self._gauges.stop()
        for name in ("stream.open", "session.active", "refresh.scheduled", "refresh.lag_ms"):
            self.metrics.gauge(name, 0)
