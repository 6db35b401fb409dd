"""What every MCP handler does alike: say who asks, check what a request needs, answer errors as JSON-RPC."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from mcp.server.auth.middleware.auth_context import auth_context_var
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from mcp.shared.exceptions import MCPError
from mcp_types.jsonrpc import INVALID_REQUEST, ErrorData, JSONRPCRequest, RequestId
from tornado.web import HTTPError, RequestHandler

from ..errors import AuthError, InsufficientScopeError, RequestTooLargeError
from ..identity import UserContext
from ..sessions.requirements import NO_REQUIREMENTS, Requirements
from ..streams import EventStream
from ..web.mixin import SSEAuthMixin
from ..web.responses import Answer
from .caller import enter
from .hosted_server import HostedServer
from .message_stream import MessageStream
from .messages import Message, UnreadableMessage, encode, error_message, read_message
from .peer import Peer
from .refusals import ScopeOutOfReachError, refusal, refusal_status

__all__ = ["MCPHandler"]

S = TypeVar("S", bound=EventStream)

MAX_BODY = 4 * 1024 * 1024
MAX_UNKNOWN = 64 * 1024
MAX_HANDSHAKE = 64 * 1024
CREDENTIALS = frozenset({"authorization", "cookie", "proxy-authorization"})
NO_CLIENT = "session"  # for credentials of a session's own, which no client was registered for


class MCPHandler(SSEAuthMixin, RequestHandler):
    """A handler of one of the endpoint's paths."""

    sign_in_redirect = False
    max_body = MAX_BODY
    exposed_headers = ("Mcp-Session-Id", "MCP-Protocol-Version")
    peer: Peer | None = None

    def initialize(self, hosted: HostedServer) -> None:
        """Tornado hands over what stands in the rule."""
        self.hosted = hosted

    def read_message(self) -> tuple[Message, dict[str, Any]]:
        """The request's body as a message, and as the object that it is. Raises `UnreadableMessage`."""
        return read_message(self.request.body, max_depth=self.sse_auth.options.max_json_depth)

    def check_content(self, *accepted: str) -> None:
        """Raises `HTTPError` 415 for a body that is no JSON, 406 for a client that does not take what we send."""
        content_type = self.request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if content_type != "application/json":
            raise HTTPError(415)
        self.check_accept(*accepted)

    def check_handshake(self) -> None:
        """Raises `RequestTooLargeError`: what a client says of itself is kept as long as its session."""
        if len(self.request.body) > MAX_HANDSHAKE:
            raise RequestTooLargeError(reason=f"an initialize of {len(self.request.body)} bytes")

    def check_accept(self, *accepted: str) -> None:
        """Raises `HTTPError` 406 for a client that does not take all of the media types `accepted`."""
        header = self.request.headers.get("Accept", "*/*").lower()
        taken = {item.partition(";")[0].strip() for item in header.split(",")}
        if "*/*" in taken:
            return
        for media_type in accepted:
            if media_type not in taken and f"{media_type.partition('/')[0]}/*" not in taken:
                raise HTTPError(406)

    @property
    def prefers_events(self) -> bool:
        """Whether the client names event streams before JSON; where either will do, that decides."""
        accept = self.request.headers.get("Accept", "").lower()
        events, json_ = accept.find("text/event-stream"), accept.find("application/json")
        return 0 <= events < json_

    def header_lines(self) -> list[tuple[str, str]]:
        """The request's headers as the kernel wants them, names in lower case. It keeps them with the call, whose
        attributes may be written down by whatever debugs it: what the caller signs in with is not among them."""
        lines = ((name.lower(), value) for name, value in self.request.headers.get_all())
        return [(name, value) for name, value in lines if name not in CREDENTIALS]

    def lowercase_headers(self) -> dict[str, str]:
        """The same, the last of repeated ones."""
        return dict(self.header_lines())

    # -- who asks --------------------------------------------------------------------------------------------------

    @property
    def user(self) -> UserContext:
        """The user as of now: scopes may have narrowed since the request came."""
        return self._stream.user if self._stream is not None else self.authenticated.user

    @property
    def client_id(self) -> str:
        """The client that the credential was issued to."""
        found = self.authenticated
        if found.grant is not None:
            return found.grant.client_id
        return NO_CLIENT if found.session.stored else found.session.client

    def enter(self) -> None:
        """Make the caller known to what runs in this task from here on: to ours by `current_user()`, to the SDK's own
        (which binds `requestState` to it) without any token."""
        enter(self)
        user = self.authenticated.user
        token = AccessToken(
            token="",
            client_id=self.client_id,
            scopes=sorted(user.scopes),
            subject=user.user_id,
            claims={"iss": self.sse_auth.options.public_url},
        )
        auth_context_var.set(AuthenticatedUser(token))

    @property
    def subscription_levels(self) -> tuple[str, ...]:
        """From lowest to highest."""
        return self.sse_auth.options.subscription_levels

    def check_access(self, method: str, params: Mapping[str, Any] | None) -> None:
        """Raises `ForbiddenError` for what the user lacks, before anything is dispatched; a stream that is opened for
        the request ends when it lacks later."""
        needed = self.hosted.rules.needed(method, params)
        if needed is not NO_REQUIREMENTS:
            self.demand(needed)

    def demand(self, needed: Requirements) -> None:
        """Ask this of the user, now and for as long as a stream of this request is open. Raises `ForbiddenError`: with
        a challenge for scopes only where the client can get them."""
        self.requirements = self.hosted.rules.both(self.requirements, needed)
        try:
            needed.check(self.user, self.subscription_levels)
        except InsufficientScopeError as error:
            missing = needed.scopes - self.user.scopes
            if self._out_of_reach(missing):
                names = ", ".join(sorted(missing))
                raise ScopeOutOfReachError(f"The account does not have the scope {names}.") from error
            raise

    def require(
        self, *, scopes: Iterable[str] = (), permissions: Iterable[str] = (), subscription: str | None = None
    ) -> None:
        """Ask for more on the way. Raises what `demand` raises."""
        self.demand(Requirements.of(scopes, permissions, subscription))

    def _out_of_reach(self, missing: frozenset[str]) -> bool:
        """Whether a grant's client cannot get all of these scopes by asking its user again: they are none that our
        server gives, or the account turned out not to have them when they were asked for last."""
        found = self.authenticated
        offered = self.sse_auth.protected_resources.get(self.resource or "")
        if found.grant is None or offered is None:
            return False  # a credential that our server did not give to a client: 403 as anywhere else
        return not missing <= set(offered) or bool(missing & found.grant.refused - found.session.scopes)

    def listen(self, acknowledgment: Mapping[str, Any]) -> MessageStream:
        """Raises `MCPError`: streams that only listen are one transport's."""
        raise MCPError(INVALID_REQUEST, "subscriptions/listen needs a request of its own")

    def make_stream(self, kind: type[S]) -> S:
        """A stream of this request, not yet open."""
        return self._make_stream(kind)

    def forget_stream(self) -> None:
        """The stream was not opened after all."""
        self._stream = None

    # -- answers ---------------------------------------------------------------------------------------------------

    def answer(self, message: dict[str, Any], status: int = 200) -> None:
        """Answer with one JSON-RPC message."""
        self.set_status(status)
        self.set_header("Content-Type", "application/json")
        self.finish(encode(message))

    def refuse(self, error: ErrorData, status: int = 400, request_id: RequestId | None = None) -> None:
        """Answer with a JSON-RPC error."""
        self.answer(error_message(request_id, error), status)

    def write_answer(self, error: AuthError, answer: Answer) -> None:
        """To a request that has an id, the error table's object stands in a JSON-RPC message: the Python SDK shows
        nothing else of an answer that is not 2xx."""
        request = self._readable_request()
        if request is not None:
            public_url = self.sse_auth.options.public_url
            message = refusal(request, error, json.loads(answer.body), public_url=public_url)
            answer = Answer(refusal_status(error), encode(message), answer.headers)
        super().write_answer(error, answer)

    def _readable_request(self) -> JSONRPCRequest | None:
        # Nobody whom this server does not know makes it read megabytes of JSON, for an error that names an id.
        largest = self.max_body if self._authenticated is not None else MAX_UNKNOWN
        if self.request.method != "POST" or len(self.request.body) > largest:
            return None
        try:
            message, _ = self.read_message()
        except UnreadableMessage:
            return None
        return message if isinstance(message, JSONRPCRequest) else None
