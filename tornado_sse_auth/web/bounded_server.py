"""An HTTP server that never runs out of file descriptors: what is too much is turned away, what it has goes on."""

from __future__ import annotations

import logging
import resource
import sys
from http.client import responses
from typing import Any

from tornado.httpserver import HTTPServer
from tornado.iostream import IOStream, StreamClosedError

from ..clock import SystemClock
from ..errors import OverloadedError
from .responses import error_answer

__all__ = ["BoundedHTTPServer"]

_log = logging.getLogger(__name__)

RESERVED = 32  # descriptors for store, provider, metrics and listening, or an eighth where that is more
QUIET = 5.0  # seconds between two lines of the log about it


class BoundedHTTPServer(HTTPServer):
    """Tornado's `HTTPServer` with at most `max_connections` open connections; by default as many as the limit of file
    descriptors leaves after what store and provider need.

    One connection more is answered 503 and closed. Without this, a process at its limit spins: each turn of the loop
    fails to accept, and says so with a traceback. Takes the other arguments of `HTTPServer`.
    """

    def initialize(self, *arguments: Any, max_connections: int | None = None, **options: Any) -> None:
        """Called by the constructor with its arguments."""
        super().initialize(*arguments, **options)
        self._max_connections = _room() if max_connections is None else max_connections
        self._clock = SystemClock()
        self._turned_away = 0
        self._said_at = -QUIET

    def handle_stream(self, stream: IOStream, address: tuple[Any, ...]) -> None:
        """Called by Tornado for each connection that it has accepted."""
        if len(self._connections) < self._max_connections:
            super().handle_stream(stream, address)
            return
        self._turned_away += 1
        now = self._clock.monotonic()
        if now - self._said_at >= QUIET:
            _log.warning(
                "%d connections are open, which is all this process may have: %d more were turned away",
                self._max_connections,
                self._turned_away,
            )
            self._said_at, self._turned_away = now, 0
        if type(stream) is IOStream:  # under TLS nothing can be said before a handshake
            try:
                stream.write(_REFUSAL)
            except StreamClosedError:
                return
        stream.close()


def _room() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else max(1, soft - max(RESERVED, soft // 8))


def _refusal() -> bytes:
    answer = error_answer(OverloadedError(), request_id="-", resource_metadata=None)
    headers = {**answer.headers, "Content-Length": str(len(answer.body)), "Connection": "close"}
    lines = [f"HTTP/1.1 {answer.status} {responses[answer.status]}", *(f"{n}: {v}" for n, v in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode() + answer.body


_REFUSAL = _refusal()
