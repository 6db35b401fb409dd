"""An HTTP server that runs out of neither file descriptors nor memory: what is too much is turned away, what it has
goes on."""

from __future__ import annotations

import logging
import resource
import socket
import sys
from collections.abc import Awaitable, Iterable
from functools import partial
from http.client import responses
from typing import Any, cast

from tornado.http1connection import HTTP1Connection
from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPConnection, HTTPHeaders, HTTPMessageDelegate, RequestStartLine, ResponseStartLine
from tornado.iostream import IOStream, StreamClosedError

from ..clock import SystemClock
from ..errors import OverloadedError
from .admission import DEFERRED, Admission, Newcomers
from .responses import error_answer
from .syn_filter import take_syns

__all__ = ["BoundedHTTPServer"]

_log = logging.getLogger(__name__)

RESERVED = 32  # descriptors for store, provider, metrics and listening, or an eighth where that is more
UNDEFERRED = DEFERRED + 0.25  # seconds
QUIET = 5.0  # seconds between two lines of the log about it
BODY_MEMORY = 256 * 1024 * 1024
# Of each body these are not counted: who holds the rest does not keep others from signing in.
SMALL_BODY = 64 * 1024


class BoundedHTTPServer(HTTPServer):
    """Tornado's `HTTPServer` with at most `max_connections` open connections; by default as many as the limit of file
    descriptors leaves after what store and provider need.

    One connection more is answered 503 and closed. Without this, a process at its limit spins: each turn of the loop
    fails to accept, and says so with a traceback. A crowd of newcomers is let in one by one, between the requests on
    connections that are open: the next when the one before has its answer. The bodies that are still
    arriving, which Tornado keeps in memory before anybody is asked who they are, have `max_body_memory` bytes in all
    (256 MiB) beyond the first 64 KiB of each; the connection that brings more is closed. Takes the other arguments of
    `HTTPServer`.
    """

    def initialize(
        self,
        *arguments: Any,
        max_connections: int | None = None,
        max_body_memory: int = BODY_MEMORY,
        **options: Any,
    ) -> None:
        """Called by the constructor with its arguments."""
        super().initialize(*arguments, **options)
        self.body_memory = max_body_memory
        self._max_connections = _room() if max_connections is None else max_connections
        self._clock = SystemClock()
        self._admissions: list[Admission] = []
        self.newcomers = Newcomers()
        self._turned_away = 0
        self._said_at = -QUIET

    def add_sockets(self, sockets: Iterable[socket.socket]) -> None:
        """Accept connections from `sockets`, which listen."""
        for listener in sockets:
            admission = Admission(listener, self._handle_connection, self.newcomers, self._clock)
            self._sockets[listener.fileno()] = listener
            self._handlers[listener.fileno()] = partial(_leave, admission, listener)
            self._admissions.append(admission)

    def prepare_stop(self) -> float:
        """How many seconds later `stop` resets nobody. Until now the kernel held who had connected and sent nothing
        yet, and it would reset them with the listening socket, whatever they are about to send."""
        for admission in self._admissions:
            admission.undefer()
        return UNDEFERRED if self._admissions else 0.0

    def stop(self) -> None:
        """Stop listening. Connections that wait to be accepted are served first: the kernel would reset them with the
        socket, and a proxy does not try a POST again that broke off."""
        if not self._stopped:
            for admission in self._admissions:
                admission.drain()
            self._admissions.clear()
        super().stop()

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

    def start_request(self, server_conn: object, request_conn: HTTPConnection) -> HTTPMessageDelegate:
        """Called by Tornado for each request."""
        return _Arriving(self, cast(HTTP1Connection, request_conn), super().start_request(server_conn, request_conn))


class _Arriving(HTTPMessageDelegate):
    """A request whose body is counted while it arrives."""

    def __init__(self, server: BoundedHTTPServer, connection: HTTP1Connection, request: HTTPMessageDelegate) -> None:
        self._server = server
        self._connection = connection
        self._request = request
        self._received = 0
        self._counted = 0

    def headers_received(
        self, start_line: RequestStartLine | ResponseStartLine, headers: HTTPHeaders
    ) -> Awaitable[None] | None:
        self._server.newcomers.asks(self._connection.stream)
        return self._request.headers_received(start_line, headers)

    def data_received(self, chunk: bytes) -> Awaitable[None] | None:
        free = max(0, SMALL_BODY - self._received)
        self._received += len(chunk)
        counted = max(0, len(chunk) - free)
        self._counted += counted
        self._server.body_memory -= counted
        if counted and self._server.body_memory < 0:
            self._connection.close()
            return None
        return self._request.data_received(chunk)

    def finish(self) -> None:
        self._arrived()
        self._request.finish()

    def on_connection_close(self) -> None:
        self._arrived()
        self._request.on_connection_close()

    def _arrived(self) -> None:
        self._server.body_memory += self._counted
        self._counted = 0


def _leave(admission: Admission, listener: socket.socket) -> None:
    """Called by Tornado just before it closes `listener`, which whoever else has it finds as it was."""
    admission.close()
    admission._defer(DEFERRED)
    take_syns(listener)


def _room() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else max(1, soft - max(RESERVED, soft // 8))


def _refusal() -> bytes:
    answer = error_answer(OverloadedError(), request_id="-", resource_metadata=None)
    headers = {**answer.headers, "Content-Length": str(len(answer.body)), "Connection": "close"}
    lines = [f"HTTP/1.1 {answer.status} {responses[answer.status]}", *(f"{n}: {v}" for n, v in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode() + answer.body


_REFUSAL = _refusal()
