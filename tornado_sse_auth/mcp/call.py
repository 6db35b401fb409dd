"""One request of the 2025 revisions over Streamable HTTP, whose stream can be read on over another connection."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Mapping
from typing import Any

from mcp.shared.message import ServerMessageMetadata
from mcp_types.jsonrpc import JSONRPCRequest

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
from .calls_by_session import CallsBySession
from .live_session import LiveSession
from .message_stream import HEADERS_WITHIN, MessageStream
from .messages import encode, error_message, event
from .responder import Responder
from .served_request import CANCELLED, ServedRequest

__all__ = ["RESPONSE", "Call", "event_id"]

PRIMING = "priming"  # names of events in the log; on the wire all are messages
RESPONSE = "response"
POLLING_SINCE = "2025-11-25"  # older clients cannot read an event without data (SEP-1699)
RETRY = 0.5  # seconds after which a client comes back to a stream that was closed on the way
_GOES_ON = (CloseReason.CLIENT, CloseReason.COMPLETED, CloseReason.SLOW_CONSUMER, CloseReason.SERVER_SHUTDOWN)


def event_id(stream: str, n: int) -> str:
    """The id of event `n` of a stream: it tells which stream to go on with."""
    return f"{stream}.{n}"


class Call(ServedRequest):
    """The answer is JSON, and nothing is written to the log, unless a message must leave before it: then it is a
    stream, each of whose messages is in the log before it is sent. `over`: the connection is not needed any more."""

    def __init__(
        self,
        live: LiveSession,
        responder: Responder,
        calls: CallsBySession,
        request: JSONRPCRequest,
        headers: Mapping[str, str],
    ) -> None:
        super().__init__(live, responder, request, headers)
        self.stream_id = secrets.token_urlsafe(9)
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.refusal: AuthError | None = None
        self._live = live
        self._found = responder.authenticated
        self._calls = calls
        self._events: EventLog = responder.sse_auth.events
        self._responder: Responder | None = responder
        self._polling = live.protocol_version >= POLLING_SINCE
        if self._polling:
            self.message_metadata = ServerMessageMetadata(
                request_context=responder.request,
                close_sse_stream=self.close_stream,
                close_standalone_sse_stream=self.close_standing,
            )
        self._stream: MessageStream | None = None
        self._logged = False
        self._turn = asyncio.Lock()  # messages are in the log, and leave, in the order in which they were sent
        self._timer: asyncio.TimerHandle | None = None
        self._quiet: asyncio.Task[None] | None = None

    # -- for tools -------------------------------------------------------------------------------------------------

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

    def start(self) -> None:
        """Begin; after a moment without a word the answer becomes a stream, which is kept alive."""
        super().start()
        self._calls.add(self, self._found)
        self._live.streams[self.stream_id] = self
        self._timer = asyncio.get_running_loop().call_later(HEADERS_WITHIN, self._begin_quietly)

    def detach(self) -> None:
        """The connection is gone, or is used no more; the request goes on."""
        self._responder = None
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

    def _refused(self, error: AuthError) -> dict[str, Any]:
        if not self._logged:
            self.refusal = error
        return super()._refused(error)

    async def _finish(self, message: dict[str, Any] | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._quiet is not None:
            await asyncio.wait([self._quiet])
        try:
            async with self._turn:
                await self._answer(message)
        finally:
            self._live.streams.pop(self.stream_id, None)
            self._calls.remove(self, self._found)
            self.detach()

    async def _answer(self, message: dict[str, Any] | None) -> None:
        if self._logged and message is not None:
            await self._write(message, RESPONSE)
        elif self._responder is not None and self.refusal is None and self._stream is None:
            if message is None:
                message = error_message(self.request_id, CANCELLED)
            if self._responder.prefers_events:
                self._open(event(encode(message)))
            if self._stream is None:
                self._responder.answer(message)
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
        responder = self._responder
        if responder is None:
            return
        stream = responder.make_stream(MessageStream)
        stream.first = first
        try:
            stream.open()
        except (RateLimitedError, UnavailableError):
            responder.forget_stream()  # the answer is in the log, and here it is JSON
        except AuthError as error:
            responder.forget_stream()
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
        elif kind == RESPONSE and self._responder is not None:
            self._responder.answer(message)

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
