"""What the web layer needs of the middleware, as a Protocol: it is found in the application's settings."""

from __future__ import annotations

from typing import Any, Protocol

from tornado.httputil import HTTPServerRequest
from tornado.web import RequestHandler

from ..audit import AuditLog
from ..clock import Clock
from ..errors import ConfigurationError
from ..events import EventLog
from ..identity import Secret, Session
from ..metrics import Metrics
from ..oauth import IdentityMapper, OAuthProvider
from ..options import Options
from ..sessions.credentials import PresentedCredential
from ..sessions.manager import SessionManager
from ..sessions.token_refresh import TokenRefresher
from ..stores.base import KeptRecords, SingleUseRecords
from ..streams import ChannelHub, StreamRegistry
from .guards import PeerLimiter, RequestGuard

__all__ = ["AuthContext", "auth_context"]


class AuthContext(Protocol):
    """The parts of `SSEAuthenticationMiddleware` that handlers use."""

    options: Options
    clock: Clock
    metrics: Metrics
    audit: AuditLog
    sessions: SessionManager
    records: SingleUseRecords
    kept: KeptRecords
    protected_resources: dict[str, tuple[str, ...]]
    events: EventLog
    provider: OAuthProvider | None
    refresher: TokenRefresher | None
    identity_mapper: IdentityMapper
    registry: StreamRegistry
    hub: ChannelHub
    guard: RequestGuard
    bad_credentials: PeerLimiter
    sign_ins: PeerLimiter
    cookie_name: str
    authorization_servers: tuple[str, ...]

    def presented(self, request: HTTPServerRequest) -> PresentedCredential | None:
        """The request's credential."""
        ...

    def authorization_url(self, session: Session | None = None) -> str | None:
        """Where to sign in: anew, or for the session that needs its user. None without a provider."""
        ...

    def session_cookie(self, credential: Secret) -> dict[str, Any]:
        """Arguments of `RequestHandler.set_cookie` for the session cookie."""
        ...


def auth_context(handler: RequestHandler) -> AuthContext:
    """The middleware of the handler's application. Raises `ConfigurationError` where it was not put there."""
    context: AuthContext | None = handler.application.settings.get("sse_auth")
    if context is None:
        raise ConfigurationError("pass the middleware to the application: Application(routes, sse_auth=auth)")
    return context
