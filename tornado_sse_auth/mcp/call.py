"""One request of the 2025 revisions. It goes on when its connection breaks; its stream can be read on elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import anyio
from mcp.server.runner import modern_error_data
from mcp.shared.dispatcher import CallOptions
from mcp.shared.exceptions import NoBackChannelError
from mcp.shared.jsonrpc_dispatcher import progress_token_from_params
from mcp.shared.message import ServerMessageMetadata
from mcp.shared.transport_context import TransportContext
from mcp_types.jsonrpc import INTERNAL_ERROR, ErrorData, JSONRPCRequest

from ..errors import (
    AuthError,
    RateLimitedError,
    RequestTooLargeError,
    StoreUnavailableError,
    StreamEnded,
    UnavailableError,
)
from ..events import EventLog
from ..streams.event import chunk, encode_retry
from ..streams.reasons import CloseReason
from .caller import AccessRefused
from .live_session import LiveSession
from .logging_level import is_wanted
from .message_stream import MessageStream
from .messages import encode, error_message, event, notification, result_message
from .refusals import refusal

if TYPE_CHECKING:
    from .handler import MCPHandler

__all__ = ["PRIMING", "RESPONSE", "Call", "event_id"]

PRIMING = "priming"  # names of events in the log; on the wire all are messages
RESPONSE = "response"
POLLING_SINCE = "2025-11-25"  # older clients cannot read an event without data (SEP-1699)
RETRY = 0.5  # seconds after which a client comes back to a stream that was closed on the way
_CANCELLED = ErrorData(code=-32800, message="The request was cancelled.")
_SHUT_DOWN = ErrorData(code=INTERNAL_ERROR, message="The server was shut down before the request was done.")
_GOES_ON = (CloseReason.CLIENT, CloseReason.COMPLETED, CloseReason.SLOW_CONSUMER, CloseReason.SERVER_SHUTDOWN)


def event_id(stream: str, n: int) -> str:
    """The id of event `n` of a stream: it tells which stream to go on with."""
    return f"{stream}.{n}"


class Call:
    """The kernel's dispatch context of one request, in a task of its own. The answer is JSON, and nothing is written to
    the log, unless a message must leave before it: then it is a stream, each of whose messages is in the log first."""

    def __init__(
        self, live: LiveSession, handler: MCPHandler, request: JSONRPCRequest, headers: Mapping[str, str]
    ) -> None:
        self.transport = TransportContext(kind="streamable-http", can_send_request=True, headers=headers)
        self.request_id = request.id
        self.stream_id = secrets.token_urlsafe(9)
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.refusal: AuthError | None = None
        self.task: asyncio.Task[None] | None = None
        self._live = live
        self._events: EventLog = handler.sse_auth.events
        self._handler: MCPHandler | None = handler
        self._public_url = handler.sse_auth.options.public_url
        self._request = request
        self._progress_token = progress_token_from_params(request.params)
        self._polling = live.session.protocol_version >= POLLING_SINCE
        self.message_metadata = ServerMessageMetadata(
            request_context=handler.request,
            close_sse_stream=self.close_stream if self._polling else None,
            close_standalone_sse_stream=self.close_standing if self._polling else None,
        )
        self._cancel_requested: anyio.Event | None = None
        self._stream: MessageStream | None = None
        self._logged = False
        self._turn = asyncio.Lock()  # messages are in the log, and leave, in the order in which they were sent
        self._done = False
        self._ending: ErrorData | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._quiet: asyncio.Task[None] | None = None

    # -- for the kernel --------------------------------------------------------------------------------------------

    @property
    def can_send_request(self) -> bool:
        """While the request is being served."""
        return not self._done

    @property
    def cancel_requested(self) -> anyio.Event:
        """Set when the client cancels."""
        if self._cancel_requested is None:
            self._cancel_requested = anyio.Event()
        return self._cancel_requested

    async def send_raw_request(
        self, method: str, params: Mapping[str, Any] | None, opts: CallOptions | None = None
    ) -> dict[str, Any]:
        """Ask the client, on this request's stream. Raises `MCPError`."""
        if self._done:
            raise NoBackChannelError(method)
        return await self._live.ask(method, params, opts, self._send)

    async def notify(self, method: str, params: Mapping[str, Any] | None, opts: CallOptions | None = None) -> None:
        """Send a notification on this request's stream."""
        if method == "notifications/message" and not is_wanted(self._live.session.log_level, params):
            return
        if not self._done:
            await self._send(notification(method, params))

    async def progress(self, progress: float, total: float | None = None, message: str | None = None) -> None:
        """Report progress, if the client gave a token for it."""
        if self._progress_token is None:
            return
        params: dict[str, Any] = {"progressToken": self._progress_token, "progress": progress}
        if total is not None:
            params["total"] = total
        if message is not None:
            params["message"] = message
        await self.notify("notifications/progress", params)

    async def close_stream(self) -> None:
        """Close the connection, not the stream: the client comes back for the rest (SEP-1699)."""
        async with self._turn:
            await self._begin()
            stream, self._stream = self._stream, None
            if stream is not None and stream.ended is None:
                stream.write(chunk(encode_retry(RETRY)))
                stream.close()
        self.detach()

    async def close_standing(self) -> None:
        """The same for the stream that belongs to no request."""
        stream = self._live.standing
        if stream is not None and stream.ended is None:
            stream.write(chunk(encode_retry(RETRY)))
            stream.end(CloseReason.COMPLETED)

    # -- life ------------------------------------------------------------------------------------------------------

    def start(self, quiet: float) -> None:
        """Begin; after `quiet` seconds without a word the answer becomes a stream, which is kept alive."""
        self._live.calls[self.request_id] = self
        self.task = asyncio.create_task(self._run(), name=f"MCP {self._request.method}")
        self._timer = asyncio.get_running_loop().call_later(quiet, self._begin_quietly)

    def cancel(self) -> None:
        """The client wants it no more."""
        if self._cancel_requested is not None:
            self._cancel_requested.set()
        self._interrupt(_CANCELLED)

    def shut_down(self) -> None:
        """This process can go on with it no more."""
        self._interrupt(_SHUT_DOWN)

    def stop(self) -> None:
        """Its session or its user's right to it is over: no word more."""
        self._interrupt(None)

    def detach(self) -> None:
        """The connection is gone, or is used no more; the request goes on."""
        self._handler = None
        if not self.over.done():
            self.over.set_result(None)

    def give_way(self) -> None:
        """Another connection reads the stream from now on."""
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()
        self.detach()

    def _begin_quietly(self) -> None:
        self._quiet = asyncio.create_task(self._open_quietly(), name=f"stream of MCP {self._request.method}")

    async def _open_quietly(self) -> None:
        async with self._turn:
            if not self._done:
                await self._begin()

    def _interrupt(self, ending: ErrorData | None) -> None:
        if self.task is not None and not self._done:
            self._ending = ending
            self.task.cancel()

    async def _run(self) -> None:
        request = self._request
        message: dict[str, Any] | None
        try:
            result = await self._live.runner.on_request(self, request.method, request.params)
            message = result_message(request.id, result)
        except asyncio.CancelledError:
            message = error_message(request.id, self._ending) if self._ending is not None else None
        except AccessRefused as error:
            message = self._refused(error.auth_error)
        except AuthError as error:
            message = self._refused(error)
        except Exception as error:
            message = error_message(request.id, modern_error_data(error))
        finally:
            self._done = True
            if self._timer is not None:
                self._timer.cancel()
            if self._quiet is not None:
                await asyncio.wait([self._quiet])
        try:
            async with self._turn:
                await self._finish(message)
        finally:
            if self._live.calls.get(self.request_id) is self:
                del self._live.calls[self.request_id]
            self.detach()

    def _refused(self, error: AuthError) -> dict[str, Any]:
        if not self._logged:
            self.refusal = error
        document = {"error": error.code, "error_description": error.public_message}
        return refusal(self._request, error, document, public_url=self._public_url)

    async def _finish(self, message: dict[str, Any] | None) -> None:
        if self._logged and message is not None:
            await self._write(message, RESPONSE)
        elif self._handler is not None and self.refusal is None and self._stream is None:
            if message is None:
                message = error_message(self.request_id, _CANCELLED)
            if self._handler.prefers_events:
                self._open(event(encode(message)))
            if self._stream is None:
                self._handler.answer(message)
        if self._stream is not None:
            self._stream.close()

    # -- the stream ------------------------------------------------------------------------------------------------

    async def _send(self, message: dict[str, Any]) -> None:
        async with self._turn:
            await self._begin()
            await self._write(message, "message")

    async def _begin(self) -> None:
        """Open the stream, and the log of it, unless that is done."""
        if self._logged:
            return
        self._logged = True
        first = b""
        if self._polling:
            n = await self._log("", PRIMING)
            first = b"" if n is None else b"id: %b\ndata: \n\n" % event_id(self.stream_id, n).encode()
        self._open(first)

    def _open(self, first: bytes) -> None:
        handler = self._handler
        if handler is None:
            return
        stream = handler.make_stream(MessageStream)
        stream.first = first
        try:
            stream.open()
        except (RateLimitedError, UnavailableError):
            handler.forget_stream()  # the answer is in the log, and here it is JSON
        except AuthError as error:
            handler.forget_stream()
            self.refusal = error
            self.stop()
        else:
            self._stream = stream
            stream.on_end = self._on_end

    async def _write(self, message: dict[str, Any], kind: str) -> None:
        encoded = encode(message)
        n = await self._log(encoded.decode(), kind)
        stream = self._stream
        if stream is not None:
            with contextlib.suppress(StreamEnded):
                await stream.put(chunk(event(encoded, None if n is None else event_id(self.stream_id, n))))
        elif kind == RESPONSE and self._handler is not None:
            self._handler.answer(message)

    async def _log(self, text: str, kind: str) -> int | None:
        """The event's number, or None where it could not be kept: it is still worth sending."""
        try:
            return await self._events.publish(self._live.channel(self.stream_id), text, event=kind)
        except (StoreUnavailableError, RequestTooLargeError):
            return None

    def _on_end(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None and stream.ended not in _GOES_ON:
            self.stop()
        self.detach()
