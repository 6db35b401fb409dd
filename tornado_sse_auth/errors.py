"""Every error of the package, each with its one HTTP answer. Nothing here knows Tornado.

AuthError
├── AuthenticationRequiredError         401 authorization_required
│   ├── InvalidTokenError               401 invalid_token
│   │   └── ExpiredTokenError           401 invalid_token (it was good once: nobody guesses such a one)
│   └── ReauthorizationRequiredError    401 authorization_required (the session is known, its user is needed)
├── InvalidRequestError                 400 invalid_request
├── ForbiddenError                      403 (abstract)
│   ├── InsufficientScopeError          403 insufficient_scope
│   ├── InsufficientPermissionError     403 insufficient_permission
│   ├── InsufficientSubscriptionError   403 insufficient_subscription
│   ├── InvalidOriginError              403 invalid_origin
│   └── AccessDeniedError               403 access_denied
├── NotFoundError                       404 not_found
├── StatusError                         an application's own HTTPError, with its status
├── MethodNotAllowedError               405 method_not_allowed
├── RequestTooLargeError                413 request_too_large
├── InvalidHostError                    421 invalid_host
├── RateLimitedError                    429 rate_limited
│   └── TooManyStreamsError             429 too_many_streams
├── ServerError                         500 server_error
└── UnavailableError                    503 (abstract)
    ├── StoreUnavailableError           503 store_unavailable
    ├── ProviderUnavailableError        503 provider_unavailable
    └── OverloadedError                 503 overloaded

Outside the tree: ConfigurationError (the server does not start), StreamEnded (a stream that is used is over).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from http.client import responses
from typing import ClassVar

__all__ = [
    "AccessDeniedError",
    "AuthError",
    "AuthenticationRequiredError",
    "ConfigurationError",
    "ExpiredTokenError",
    "ForbiddenError",
    "InsufficientPermissionError",
    "InsufficientScopeError",
    "InsufficientSubscriptionError",
    "InvalidHostError",
    "InvalidOriginError",
    "InvalidRequestError",
    "InvalidTokenError",
    "MethodNotAllowedError",
    "NotFoundError",
    "OverloadedError",
    "ProviderUnavailableError",
    "RateLimitedError",
    "ReauthorizationRequiredError",
    "RequestTooLargeError",
    "ServerError",
    "StatusError",
    "StoreUnavailableError",
    "StreamEnded",
    "TooManyStreamsError",
    "UnavailableError",
]

# Seconds to wait before the next attempt, where nobody knows better.
PAUSES = {429: 60.0, 503: 2.0}


class AuthError(Exception):
    """An error with a public face (`status`, `code`, `public_message`) and a private `reason` that only the log sees.

    `retry_after`: seconds until the request is worth another attempt; None where waiting alone changes nothing. `str()`
    of an error is for the log; an answer to a client is built from the public face alone.
    """

    status: int
    code: str
    default_message: ClassVar[str]
    retry_after: float | None = None

    def __init__(self, public_message: str | None = None, *, reason: str | None = None) -> None:
        if not hasattr(self, "code"):
            raise TypeError(f"{type(self).__name__} is abstract: raise one of its subclasses")
        self.public_message = self.default_message if public_message is None else public_message
        self.reason = reason
        super().__init__(f"{self.code}: {reason or self.public_message}")


class AuthenticationRequiredError(AuthError):
    """No credential came with the request. `authorization_url`: where its user signs in, if there is such a place."""

    status = 401
    code = "authorization_required"
    default_message = "Sign in to use this resource."

    def __init__(
        self, public_message: str | None = None, *, authorization_url: str | None = None, reason: str | None = None
    ) -> None:
        super().__init__(public_message, reason=reason)
        self.authorization_url = authorization_url


class InvalidTokenError(AuthenticationRequiredError):
    """The credential is unknown, expired or revoked (RFC 6750, section 3.1)."""

    code = "invalid_token"
    default_message = "The credential is unknown, expired or revoked."


class ExpiredTokenError(InvalidTokenError):
    """The credential was good and has expired. Clients that renew late show up with it, all of an address together, so
    it does not count as an attempt to guess one."""


class ReauthorizationRequiredError(AuthenticationRequiredError):
    """The session is known, but its user must sign in again at `authorization_url`."""

    default_message = "This session needs its user to sign in again."


class InvalidRequestError(AuthError):
    """The credential or the request is malformed (RFC 6750, section 3.1)."""

    status = 400
    code = "invalid_request"
    default_message = "The request is malformed."


class ForbiddenError(AuthError):
    """Abstract: the caller is known and may not."""

    status = 403


class InsufficientScopeError(ForbiddenError):
    """A scope lacks. `required` are all scopes that the resource needs, for one challenge (RFC 6750, section 3)."""

    code = "insufficient_scope"
    default_message = "The session lacks a scope that this resource needs."

    def __init__(
        self, public_message: str | None = None, *, required: Iterable[str] = (), reason: str | None = None
    ) -> None:
        super().__init__(public_message, reason=reason)
        self.required = frozenset(required)


class InsufficientPermissionError(ForbiddenError):
    """A permission lacks."""

    code = "insufficient_permission"
    default_message = "The user lacks a permission that this resource needs."


class InsufficientSubscriptionError(ForbiddenError):
    """The subscription level is too low."""

    code = "insufficient_subscription"
    default_message = "The user's subscription does not cover this resource."


class InvalidOriginError(ForbiddenError):
    """The request comes from a page of another origin."""

    code = "invalid_origin"
    default_message = "Requests from this origin are not allowed."


class AccessDeniedError(ForbiddenError):
    """The user said no at the provider (RFC 6749, section 4.1.2.1)."""

    code = "access_denied"
    default_message = "The sign-in was declined."


class NotFoundError(AuthError):
    """No such thing, or none of the caller's."""

    status = 404
    code = "not_found"
    default_message = "There is no such resource."


class StatusError(AuthError):
    """An application's own `tornado.web.HTTPError`: answered with its status, in our shape."""

    default_message = "The request was not served."

    def __init__(self, status: int, *, reason: str | None = None) -> None:
        self.status = status
        phrase = responses.get(status, f"Status {status}")
        self.code = "_".join(re.findall("[a-z0-9]+", phrase.lower()))
        self.retry_after = PAUSES.get(status)
        super().__init__(f"{phrase}.", reason=reason)


class MethodNotAllowedError(AuthError):
    """The resource exists and knows other methods."""

    status = 405
    code = "method_not_allowed"
    default_message = "This resource does not support the method."


class RequestTooLargeError(AuthError):
    """A body or an event is above its limit."""

    status = 413
    code = "request_too_large"
    default_message = "The request is too large."


class InvalidHostError(AuthError):
    """The Host header names none of the server's hosts (RFC 9110, section 15.5.20)."""

    status = 421
    code = "invalid_host"
    default_message = "This server does not answer under that host name."


class RateLimitedError(AuthError):
    """Too many attempts."""

    retry_after: float
    status = 429
    code = "rate_limited"
    default_message = "Too many attempts; wait before the next."

    def __init__(
        self, public_message: str | None = None, *, retry_after: float = PAUSES[429], reason: str | None = None
    ) -> None:
        super().__init__(public_message, reason=reason)
        self.retry_after = retry_after


class TooManyStreamsError(RateLimitedError):
    """The user has as many open streams as one user may have."""

    code = "too_many_streams"
    default_message = "This user has too many open streams."


class ServerError(AuthError):
    """Our own fault; the public side learns nothing but the request id."""

    status = 500
    code = "server_error"
    default_message = "The server failed; the request id leads to the details in its log."


class UnavailableError(AuthError):
    """Abstract: something that is needed is away for now."""

    retry_after: float
    status = 503

    def __init__(
        self, public_message: str | None = None, *, retry_after: float = PAUSES[503], reason: str | None = None
    ) -> None:
        super().__init__(public_message, reason=reason)
        self.retry_after = retry_after


class StoreUnavailableError(UnavailableError):
    """The session store did not answer in time. Never a reason to sign anybody out."""

    code = "store_unavailable"
    default_message = "The session store is unavailable; try again shortly."


class ProviderUnavailableError(UnavailableError):
    """The provider is needed for this request and is unavailable."""

    code = "provider_unavailable"
    default_message = "The sign-in provider is unavailable; try again shortly."


class OverloadedError(UnavailableError):
    """The process has as many open streams as it can hold."""

    code = "overloaded"
    default_message = "The server is at capacity; try again shortly."


class ConfigurationError(Exception):
    """The server cannot start, or a part was used in the wrong state; the text says what to do."""


class StreamEnded(Exception):  # noqa: N818 - a fact about the stream, as StopIteration is about an iterator
    """A handler used a stream that is over. `reason` is one of the close reasons."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the stream has ended: {reason}")
        self.reason = reason
