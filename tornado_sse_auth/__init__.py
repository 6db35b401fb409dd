"""Authenticated Server-Sent-Events and MCP streams for Tornado, with the OAuth tokens behind them kept alive."""

from .audit import RequestIdFilter
from .clock import Clock, SystemClock
from .errors import (
    AccessDeniedError,
    AuthenticationRequiredError,
    AuthError,
    ConfigurationError,
    ForbiddenError,
    InsufficientPermissionError,
    InsufficientScopeError,
    InsufficientSubscriptionError,
    InvalidHostError,
    InvalidOriginError,
    InvalidRequestError,
    InvalidTokenError,
    MethodNotAllowedError,
    NotFoundError,
    OverloadedError,
    ProviderUnavailableError,
    RateLimitedError,
    ReauthorizationRequiredError,
    RequestTooLargeError,
    ServerError,
    StoreUnavailableError,
    StreamEnded,
    TooManyStreamsError,
    UnavailableError,
)
from .events import EventLog, LogEvent, MemoryEventLog, MongoEventLog
from .identity import CredentialKind, Secret, Session, SessionState, TokenSet, UserContext
from .logs import JSONFormatter, RedactionFilter, RepeatFilter
from .metrics import Metrics, NullMetrics, StatsDMetrics
from .middleware import SSEAuthenticationMiddleware
from .oauth import (
    BearerVerifier,
    Identity,
    IdentityMapper,
    JWTBearerVerifier,
    OAuthProvider,
    VerifiedBearer,
    default_identity_mapper,
)
from .observations import Interval, Observations, TimerSummary
from .refresh import RefreshManager
from .sealing import Keyring
from .sessions import SessionManager
from .stores import MemorySessionStore, MongoSessionStore, SessionStore
from .streams import EventStream
from .web import BoundedHTTPServer, NotFoundHandler, SSEAuthMixin

__all__ = [
    "AccessDeniedError",
    "AuthError",
    "AuthenticationRequiredError",
    "BearerVerifier",
    "BoundedHTTPServer",
    "Clock",
    "ConfigurationError",
    "CredentialKind",
    "EventLog",
    "EventStream",
    "ForbiddenError",
    "Identity",
    "IdentityMapper",
    "InsufficientPermissionError",
    "InsufficientScopeError",
    "InsufficientSubscriptionError",
    "Interval",
    "InvalidHostError",
    "InvalidOriginError",
    "InvalidRequestError",
    "InvalidTokenError",
    "JSONFormatter",
    "JWTBearerVerifier",
    "Keyring",
    "LogEvent",
    "MemoryEventLog",
    "MemorySessionStore",
    "MethodNotAllowedError",
    "Metrics",
    "MongoEventLog",
    "MongoSessionStore",
    "NotFoundError",
    "NotFoundHandler",
    "NullMetrics",
    "OAuthProvider",
    "Observations",
    "OverloadedError",
    "ProviderUnavailableError",
    "RateLimitedError",
    "ReauthorizationRequiredError",
    "RedactionFilter",
    "RefreshManager",
    "RepeatFilter",
    "RequestIdFilter",
    "RequestTooLargeError",
    "SSEAuthMixin",
    "SSEAuthenticationMiddleware",
    "Secret",
    "ServerError",
    "Session",
    "SessionManager",
    "SessionState",
    "SessionStore",
    "StatsDMetrics",
    "StoreUnavailableError",
    "StreamEnded",
    "SystemClock",
    "TimerSummary",
    "TokenSet",
    "TooManyStreamsError",
    "UnavailableError",
    "UserContext",
    "VerifiedBearer",
    "default_identity_mapper",
]
