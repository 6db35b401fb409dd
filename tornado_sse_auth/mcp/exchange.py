"""One request of 2026-07-28 and its answer: JSON, or a stream once a message must leave before the result."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Any

import anyio
from mcp.server.connection import Connection
from mcp.server.lowlevel.server import Server
from mcp.server.runner import ServerRunner, aclose_shielded, modern_error_data
from mcp.shared.dispatcher import CallOptions
from mcp.shared.exceptions import NoBackChannelError
from mcp.shared.inbound import ERROR_CODE_HTTP_STATUS, InboundModernRoute
from mcp.shared.jsonrpc_dispatcher import progress_token_from_params
from mcp.shared.message import ServerMessageMetadata
from mcp.shared.transport_context import TransportContext
from mcp_types.jsonrpc import ErrorData, JSONRPCRequest

from ..errors import AuthError, RateLimitedError, StreamEnded, UnavailableError
from ..streams.event import chunk
from .caller import AccessRefused
from .message_stream import HEADERS_WITHIN, MessageStream
from .messages import ACCESS_REFUSED, encode, error_message, event, notification, progress_params, result_message
from .refusals import refusal
from .responder import Responder

__all__ = ["Exchange"]

_ENDED = ErrorData(code=ACCESS_REFUSED, message="The server ended this stream; the next request will say why.")


class Exchange:
    """The kernel's dispatch context (`mcp.shared.dispatcher.DispatchContext`) of one HTTP request, served in the
    task of its handler. When the client goes, or the stream is ended from our side, that task is cancelled."""

    can_send_request = False

    def __init__(self, responder: Responder, request: JSONRPCRequest, headers: Mapping[str, str]) -> None:
        self.transport = TransportContext(kind="streamable-http", can_send_request=False, headers=headers)
        self.request_id = request.id
        self.message_metadata = ServerMessageMetadata(request_context=responder.request)
        self._responder = responder
        self._request = request
        self._progress_token = progress_token_from_params(request.params)
        self._task = asyncio.current_task()
        self._cancel_requested: anyio.Event | None = None
        self._stream: MessageStream | None = None
        self._refusal: AuthError | None = None
        self._over: asyncio.Future[None] | None = None
        self._served = False
        self._abandoned = False

    # -- for the kernel --------------------------------------------------------------------------------------------

    @property
    def cancel_requested(self) -> anyio.Event:
        """Set when the client has gone: closing the stream is how it cancels."""
        if self._cancel_requested is None:
            self._cancel_requested = anyio.Event()
            if self._abandoned:
                self._cancel_requested.set()
        return self._cancel_requested

    async def send_raw_request(
        self, method: str, params: Mapping[str, Any] | None, opts: CallOptions | None = None
    ) -> dict[str, Any]:
        """Raises `NoBackChannelError`: this revision asks the client by its result (`InputRequiredResult`)."""
        raise NoBackChannelError(method)

    async def notify(self, method: str, params: Mapping[str, Any] | None, opts: CallOptions | None = None) -> None:
        """Send a notification on the response, which is a stream from the first one on."""
        ready = event(encode(notification(method, params)))
        if self._stream is None:
            if self._refusal is None and not self._served:
                self._open(MessageStream, ready)
            return
        with contextlib.suppress(StreamEnded):
            await self._stream.put(chunk(ready))

    async def progress(self, progress: float, total: float | None = None, message: str | None = None) -> None:
        """Report progress, if the client gave a token for it."""
        if self._progress_token is not None:
            params = progress_params(self._progress_token, progress, total, message)
            await self.notify("notifications/progress", params)

    # -- for `subscriptions/listen` --------------------------------------------------------------------------------

    def listen(self, acknowledgment: Mapping[str, Any]) -> MessageStream:
        """Open the stream that stays open after the kernel has returned its result, which then is the last message.
        Raises `AuthError`."""
        first = event(encode(acknowledgment))
        self._over = asyncio.get_running_loop().create_future()
        stream = self._open(MessageStream, first)
        if stream is None:
            assert self._refusal is not None  # noqa: S101 - `_open` says so
            raise AccessRefused(self._refusal)
        return stream

    # -- for the handler -------------------------------------------------------------------------------------------

    async def serve(self, server: Server[Any], route: InboundModernRoute, lifespan_state: Any) -> None:
        """Serve the request and send its answer. Raises the `AuthError` that ended a call before its first byte."""
        # A stream is kept alive by its heartbeat, too, where a proxy would cut a connection that is silent for longer.
        timer = asyncio.get_running_loop().call_later(HEADERS_WITHIN, self._open_quietly)
        caught = False
        try:
            message, status = await self._outcome(server, route, lifespan_state)
        except asyncio.CancelledError:
            if not self._abandoned:
                raise
            caught = True
        finally:
            self._served = True
            timer.cancel()
        if self._abandoned:
            await self._absorb(caught)
            if self._stream is not None:
                self._stream.close()
            elif self._refusal is not None:
                raise self._refusal
            return
        if self._stream is None:
            self._responder.answer(message, status)
        elif self._over is None:
            self._stream.write(chunk(event(encode(message))))
            self._stream.close()
        else:
            self._stream.last = encode(message)
            try:
                await self._over
            finally:
                self._stream.close()

    def abandon(self) -> None:
        """The client has gone, or may have no more of this: stop what is running for it."""
        if self._over is not None and not self._over.done():
            self._over.set_result(None)
        if self._served or self._abandoned:
            return
        self._abandoned = True
        if self._cancel_requested is not None:
            self._cancel_requested.set()
        if self._task is not None:
            self._task.cancel()

    async def _outcome(
        self, server: Server[Any], route: InboundModernRoute, lifespan_state: Any
    ) -> tuple[dict[str, Any], int]:
        request = self._request
        connection = Connection.from_envelope(route.protocol_version, route.client_info, route.client_capabilities)
        try:
            try:
                # Not by `on_request`: a cached property, it makes a cycle of the runner at its first use.
                result = await ServerRunner(server, connection, lifespan_state)._on_request(
                    self, request.method, request.params
                )
            finally:
                if connection.exit_stack._exit_callbacks:  # type: ignore[attr-defined] # hardly ever; a shield costs
                    await aclose_shielded(connection)
        except AccessRefused as error:
            refused = error.auth_error
        except AuthError as error:
            refused = error
        except Exception as error:
            failure = modern_error_data(error)
            return error_message(request.id, failure), ERROR_CODE_HTTP_STATUS.get(failure.code, 200)
        else:
            return result_message(request.id, result), 200
        if self._stream is None:
            raise refused
        document = {"error": refused.code, "error_description": refused.public_message}
        return refusal(request, refused, document, public_url=self._responder.sse_auth.options.public_url), 200

    def _open(self, kind: type[MessageStream], first: bytes) -> MessageStream | None:
        """None, with the reason in `_refusal`, where there may be no stream: a user with too many of them still gets
        the result, one whose session has ended gets nothing."""
        stream = self._responder.make_stream(kind)
        stream.first = first
        stream.last = encode(error_message(self.request_id, _ENDED))
        stream.on_end = self.abandon
        try:
            stream.open()
        except AuthError as error:
            self._responder.forget_stream()
            self._refusal = error
            if not isinstance(error, RateLimitedError | UnavailableError):
                self.abandon()
            return None
        self._stream = stream
        return stream

    def _open_quietly(self) -> None:
        if self._stream is None and self._refusal is None and not self._served:
            self._open(MessageStream, b"")

    async def _absorb(self, caught: bool) -> None:
        """End the cancellation that was ours. Raises `CancelledError` where somebody else asked for it, too."""
        if not caught:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0)
        if self._task is not None and self._task.uncancel() > 0:
            raise asyncio.CancelledError
