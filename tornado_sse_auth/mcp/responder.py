"""What serves a message needs of the HTTP request that brought it."""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

from tornado.httputil import HTTPServerRequest

from ..sessions.cache import Authenticated
from ..streams import EventStream
from ..web.context import AuthContext

__all__ = ["Responder"]

S = TypeVar("S", bound=EventStream)


class Responder(Protocol):
    """The handler of a request: it has one answer, which is a message or a stream of them."""

    request: HTTPServerRequest

    @property
    def sse_auth(self) -> AuthContext:
        """The middleware of the application."""
        ...

    @property
    def authenticated(self) -> Authenticated:
        """Session and credential of the request."""
        ...

    @property
    def prefers_events(self) -> bool:
        """Whether the client names event streams before JSON; where either will do, that decides."""
        ...

    def answer(self, message: dict[str, Any], status: int = 200) -> None:
        """Answer with one JSON-RPC message."""

    def make_stream(self, kind: type[S]) -> S:
        """A stream of this request, not yet open."""
        ...

    def forget_stream(self) -> None:
        """The stream was not opened after all."""
