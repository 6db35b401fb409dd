"""The one long HTTP response under a stream: ready-made chunks to the connection, its end, its abortion."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from typing import cast

from tornado.http1connection import HTTP1Connection
from tornado.iostream import IOStream, StreamClosedError
from tornado.web import RequestHandler

from ..errors import ConfigurationError
from .event import payload

__all__ = ["StreamResponse"]

USER_TIMEOUT_MS = 30_000
RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class StreamResponse:
    """Writes past `RequestHandler.write()`/`flush()` and `HTTP1Connection.write()`, which make three futures of each
    event, and past `IOStream.write()` while its buffer is empty.

    Raises `ConfigurationError` where the handler has answered already.
    """

    __slots__ = ("_chunked", "_connection", "_handler", "_iostream", "_lasting", "_socket")

    def __init__(self, handler: RequestHandler) -> None:
        if handler._headers_written:
            raise ConfigurationError("the handler has begun its answer; a stream is all of an answer")
        self._handler: RequestHandler | None = handler
        self._connection = cast(HTTP1Connection, handler.request.connection)
        self._iostream = self._connection.stream
        # TLS has a layer between; there every write goes through the IOStream.
        self._socket = self._iostream.socket if type(self._iostream) is IOStream else None
        self._chunked = handler.request.version != "HTTP/1.0"
        self._lasting = handler.request.method == "GET"

    def begin(self, content: bytes) -> None:
        """Send the headers and `content`, in one segment."""
        handler = self._handler
        assert handler is not None  # noqa: S101 - `begin` comes before `finish`
        # A transform compresses; events must leave at once, and what `write` sends never sees it.
        handler._transforms = []
        handler.set_status(200)
        handler.set_header("Content-Type", "text/event-stream")
        handler.set_header("Cache-Control", "no-store")
        handler.set_header("X-Accel-Buffering", "no")
        if self._lasting:
            # Streams end by a close. A proxy that had not been told would keep the connection when it has read the
            # last chunk, and could send the next request on it just before the close.
            handler.set_header("Connection", "close")
        if not self._chunked:
            # Only the connection's end says to HTTP/1.0 where the answer ends: Tornado must not promise to keep it.
            handler.request.headers["Connection"] = "close"
        if content:
            handler.write(content)
        self._set_socket_options()
        handler.flush()

    def write(self, ready: bytes) -> None:
        """Send `ready`, an HTTP chunk. Never waits: what the socket does not take is queued."""
        if not self._chunked:
            ready = payload(ready)
        iostream = self._iostream
        rest: bytes | memoryview = ready
        if self._socket is not None and not iostream.writing():
            try:
                sent = self._socket.send(ready)
            except BlockingIOError:
                sent = 0
            except OSError as error:
                iostream.close(exc_info=error)
                return
            if sent == len(ready):
                return
            rest = memoryview(ready)[sent:]
        if not iostream.closed():
            iostream.write(rest)

    @property
    def queued(self) -> int:
        """Bytes that wait for the client to read."""
        # Tornado publishes only whether there are any; a test watches that the buffer still has a length.
        buffer = self._iostream._write_buffer
        return len(buffer) if buffer is not None else 0

    @property
    def closed(self) -> bool:
        """Whether the connection is."""
        return self._iostream.closed()

    async def drained(self) -> None:
        """Wait until nothing is queued, or the connection is closed."""
        try:
            # An empty write is done when everything before it is; shielded, since its future is the IOStream's.
            await asyncio.shield(self._iostream.write(b""))
        except StreamClosedError:
            return

    def finish(self, when_sent: Callable[[], None]) -> None:
        """End the response and call `when_sent` once all of it has left, or the connection is closed."""
        handler, self._handler = self._handler, None
        if handler is not None and not handler._finished:
            handler.finish()
        if self._iostream.closed() or not self._iostream.writing():
            when_sent()
        else:
            self._iostream.write(b"").add_done_callback(lambda _: when_sent())

    @property
    def reusable(self) -> bool:
        """Whether another request may follow on the connection."""
        return self._chunked and not self._lasting

    def close(self) -> None:
        """Close the connection; what the kernel has is still delivered."""
        self._connection.close()

    def abort(self) -> None:
        """Reset the connection. `finish()` would keep task, handler and socket for as long as nobody reads."""
        if not self._iostream.closed():
            self._iostream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            self._connection.close()

    def _set_socket_options(self) -> None:
        if self._iostream.closed():
            return
        self._iostream.set_nodelay(True)
        sock = self._iostream.socket
        if hasattr(socket, "TCP_USER_TIMEOUT") and sock.family in (socket.AF_INET, socket.AF_INET6):
            # Heartbeats to a peer that has vanished fit the kernel's buffer for minutes; this bounds them.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS)
