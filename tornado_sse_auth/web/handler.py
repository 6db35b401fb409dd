"""What every handler of this package does alike: a request id, safe headers, and errors answered in one place."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import quote

from tornado.web import Finish, RequestHandler

from ..audit import NO_REQUEST, RequestInfo, current_request
from ..errors import (
    AuthenticationRequiredError,
    AuthError,
    ForbiddenError,
    InvalidHostError,
    InvalidRequestError,
    ReauthorizationRequiredError,
    RequestTooLargeError,
    ServerError,
)
from ..sessions.requirements import NO_REQUIREMENTS, Requirements
from .context import AuthContext, auth_context
from .cors import cors_headers, is_preflight, preflight_headers
from .json_body import read_json, read_json_object
from .responses import Answer, as_auth_error, error_answer

__all__ = ["ErrorAnswers", "NotFoundHandler"]

_log = logging.getLogger(__name__)

# Far above what an authorization request with a long state needs.
MAX_URI = 32_768

# A page with a policy of its own replaces this one, and says it again.
NO_FRAMES = "frame-ancestors 'none'"

if TYPE_CHECKING:  # to the type checker the mixin is a request handler, at run time it comes before any
    _Base = RequestHandler
else:
    _Base = object


class ErrorAnswers(_Base):
    """Answers whatever a handler raises with the error table of the reference. Goes before `RequestHandler`."""

    sign_in_redirect: ClassVar[bool] = True
    """A browser that asks for a page is sent to sign in instead of getting 401."""

    max_body: ClassVar[int] = 1_048_576
    """Bytes of a body that are accepted; the server's own limit stands above it."""

    resource: ClassVar[str | None] = None
    """Path of the protected resource (RFC 9728) that the handler is part of, such as "/mcp": access tokens of the
    authorization server with that audience are good here. None: only a session's own credentials are."""

    exposed_headers: ClassVar[Collection[str]] = ()
    """More headers of the answer that scripts of `allowed_origins` may read."""

    request_info: RequestInfo = NO_REQUEST
    requirements: Requirements = NO_REQUIREMENTS
    credential_presented: bool = False
    _sse_auth: AuthContext | None = None

    @property
    def sse_auth(self) -> AuthContext:
        """The middleware of this application."""
        if self._sse_auth is None:
            self._sse_auth = auth_context(self)
        return self._sse_auth

    @property
    def resource_metadata_path(self) -> str:
        """Where the metadata of this resource is, for the challenge (RFC 9728, section 3.1)."""
        return f"/.well-known/oauth-protected-resource{self.resource or ''}"

    def identify_request(self) -> None:
        """Give the request its id, and the answer the headers that depend on who asks."""
        self.request_info = self.sse_auth.guard.describe(self.request)
        current_request.set(self.request_info)
        self._set_safe_headers()
        if len(self.request.body) > self.max_body:
            raise RequestTooLargeError(reason=f"a body of {len(self.request.body)} bytes")
        if len(self.request.uri or "") > MAX_URI:
            raise InvalidRequestError("The address is too long.", reason=f"{len(self.request.uri or '')} characters")

    def json_body(self) -> Any:
        """The request's body as JSON. Raises `InvalidRequestError`, also for more than `max_json_depth` levels."""
        return read_json(self.request.body, max_depth=self.sse_auth.options.max_json_depth)

    def json_object(self) -> dict[str, Any]:
        """The request's body as a JSON object; no body is an empty one. Raises `InvalidRequestError`."""
        return read_json_object(self.request.body, max_depth=self.sse_auth.options.max_json_depth)

    def _set_safe_headers(self) -> None:
        # `set_header` checks each value each time; ours are constants, and an id that was checked.
        headers = self._headers
        headers["X-Request-ID"] = self.request_info.request_id
        headers["Cache-Control"] = "no-store"
        headers["X-Content-Type-Options"] = "nosniff"
        headers["Content-Security-Policy"] = NO_FRAMES
        origin = self.sse_auth.guard.cross_origin(self.request)
        if origin is not None:
            for name, value in cors_headers(origin, *self.exposed_headers).items():
                self.set_header(name, value)

    def answer_preflight(self) -> None:
        """204 to a browser that asks whether a page of an allowed origin may send a request. Raises `Finish` then."""
        if is_preflight(self.request) and self.sse_auth.guard.cross_origin(self.request) is not None:
            for name, value in preflight_headers(self.request).items():
                self.set_header(name, value)
            self.set_status(204)
            raise Finish

    def compute_etag(self) -> str | None:
        """None: an answer that depends on who asks must not be matched against another's."""
        return None

    def log_exception(
        self,
        typ: type[BaseException] | None,
        value: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        """Full detail for the log: a traceback only for what is our own fault."""
        error = as_auth_error(value)
        if isinstance(error, ServerError):
            exc_info: Any = (typ, value, tb) if value is not None else None
            _log.error("%s %s failed", self.request.method, self.request.path, exc_info=exc_info)
        else:
            _log.debug("%s %s: %s", self.request.method, self.request.path, error)

    def _request_summary(self) -> str:
        """For Tornado's access log: without the query, where codes and, from careless clients, credentials stand."""
        return f"{self.request.method} {self.request.path} ({self.request.remote_ip})"

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Called by Tornado for every failed request, after all headers were cleared."""
        exc_info = kwargs.get("exc_info")
        error = as_auth_error(exc_info[1] if exc_info else None, status_code)
        auth = self.sse_auth
        if self.request_info is NO_REQUEST:
            self.request_info = auth.guard.describe(self.request)
        self._set_safe_headers()
        auth.metrics.increment(f"auth.error.{error.code}")
        if isinstance(error, ForbiddenError | InvalidHostError):
            user = self.current_user
            auth.audit.write(
                "denial",
                outcome=error.code,
                user_id=getattr(user, "user_id", ""),
                session_id=getattr(user, "session_id", ""),
                reason=error.reason,
            )
        if isinstance(error, AuthenticationRequiredError):
            url = error.authorization_url or auth.authorization_url()
            if url is not None and self._wants_page():
                separator = "&" if "?" in url else "?"
                self.redirect(f"{url}{separator}return_to={quote(self.request.uri or '/', safe='/')}")
                return
        answer = error_answer(
            error,
            request_id=self.request_info.request_id,
            resource_metadata=f"{auth.options.public_url}{self.resource_metadata_path}",
            scopes=self.requirements.scopes or self._scopes_to_ask_for(error),
            presented=self.credential_presented and isinstance(error, ReauthorizationRequiredError),
            authorization_url=auth.authorization_url(),
        )
        self.write_answer(error, answer)

    def _scopes_to_ask_for(self, error: AuthError) -> Iterable[str]:
        """Of a protected resource all that it knows: who signs in for it needs no second consent soon."""
        if self.resource is None or not isinstance(error, AuthenticationRequiredError):
            return ()
        return self.sse_auth.protected_resources.get(self.resource, ())

    def write_answer(self, error: AuthError, answer: Answer) -> None:
        """Send the answer to `error`; to be overridden where a person reads it."""
        self.set_status(answer.status)
        for name, value in answer.headers.items():
            self.set_header(name, value)
        self.finish(answer.body)

    def _wants_page(self) -> bool:
        accepts = self.request.headers.get("Accept", "")
        return self.sign_in_redirect and self.request.method == "GET" and "text/html" in accepts

    def redirect_loopback_page(self) -> None:
        """A page that was asked for under another loopback name moves to the public URL, where its cookies are."""
        auth = self.sse_auth
        try:
            auth.guard.check_host(self.request)
        except InvalidHostError:
            target = auth.guard.loopback_redirect(self.request) if self._wants_page() else None
            if target is None:
                raise
            self.redirect(target)
            raise Finish from None


class NotFoundHandler(ErrorAnswers, RequestHandler):
    """For `Application(default_handler_class=NotFoundHandler)`: 404 as in the error table."""

    sign_in_redirect = False

    def prepare(self) -> None:
        """Every method is answered alike."""
        self.identify_request()
        raise as_auth_error(None, 404)
