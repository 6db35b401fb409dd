"""A request of the older revisions in a task of its own, which a lost connection does not end."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import anyio
from mcp.server.runner import modern_error_data
from mcp.shared.dispatcher import CallOptions
from mcp.shared.exceptions import NoBackChannelError
from mcp.shared.jsonrpc_dispatcher import progress_token_from_params
from mcp.shared.message import ServerMessageMetadata
from mcp.shared.transport_context import TransportContext
from mcp_types.jsonrpc import INTERNAL_ERROR, ErrorData, JSONRPCRequest

from ..errors import AuthError, InvalidRequestError, TooManyStreamsError
from .caller import AccessRefused
from .logging_level import is_wanted
from .messages import error_message, notification, progress_params, result_message
from .peer import Peer
from .refusals import refusal
from .responder import Responder

__all__ = ["CANCELLED", "ServedRequest"]

CANCELLED = ErrorData(code=-32800, message="The request was cancelled.")
_SHUT_DOWN = ErrorData(code=INTERNAL_ERROR, message="The server was shut down before the request was done.")


class ServedRequest:
    """The kernel's dispatch context (`mcp.shared.dispatcher.DispatchContext`). Abstract: `_send` and `_finish` are the
    transport's. The task inherits the caller of the request that made it."""

    def __init__(self, peer: Peer, responder: Responder, request: JSONRPCRequest, headers: Mapping[str, str]) -> None:
        self.transport = TransportContext(kind="streamable-http", can_send_request=True, headers=headers)
        self.request_id = request.id
        self.message_metadata = ServerMessageMetadata(request_context=responder.request)
        self.task: asyncio.Task[None] | None = None
        self._peer = peer
        self._public_url = responder.sse_auth.options.public_url
        self._limit = responder.sse_auth.options.max_streams_per_user
        self._request = request
        self._progress_token = progress_token_from_params(request.params)
        self._cancel_requested: anyio.Event | None = None
        self._done = False
        self._ending: ErrorData | None = None

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
        return await self._peer.ask(method, params, opts, self._send)

    async def notify(self, method: str, params: Mapping[str, Any] | None, opts: CallOptions | None = None) -> None:
        """Send a notification on this request's stream."""
        if method == "notifications/message" and not is_wanted(self._peer.log_level, params):
            return
        if not self._done:
            await self._send(notification(method, params))

    async def progress(self, progress: float, total: float | None = None, message: str | None = None) -> None:
        """Report progress, if the client gave a token for it."""
        if self._progress_token is not None:
            params = progress_params(self._progress_token, progress, total, message)
            await self.notify("notifications/progress", params)

    # -- life ------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin. Raises `InvalidRequestError` for an id that is in use, `TooManyStreamsError` where the client has as
        many requests under way as it may: with the older revisions they outlive its connections."""
        if self.request_id in self._peer.calls:
            raise InvalidRequestError("A request with this id is being served.")
        if len(self._peer.calls) >= self._limit:
            raise TooManyStreamsError(reason=f"{len(self._peer.calls)} requests of one MCP session are under way")
        self._peer.calls[self.request_id] = self
        self.task = asyncio.create_task(self._run(), name=f"MCP {self._request.method}")

    def cancel(self) -> None:
        """The client wants it no more."""
        if self._cancel_requested is not None:
            self._cancel_requested.set()
        self._interrupt(CANCELLED)

    def shut_down(self) -> None:
        """This process can go on with it no more."""
        self._interrupt(_SHUT_DOWN)

    def stop(self) -> None:
        """Its session, or its user's right to it, is over: no word more."""
        self._interrupt(None)

    def _interrupt(self, ending: ErrorData | None) -> None:
        if self.task is not None and not self._done:
            self._ending = ending
            self.task.cancel()

    async def _run(self) -> None:
        request = self._request
        message: dict[str, Any] | None
        try:
            result = await self._peer.runner.on_request(self, request.method, request.params)
            message = result_message(request.id, result)
        except asyncio.CancelledError:
            message = error_message(request.id, self._ending) if self._ending is not None else None
        except AccessRefused as error:
            message = self._refused(error.auth_error)
        except AuthError as error:
            message = self._refused(error)
        except Exception as error:
            message = error_message(request.id, modern_error_data(error))
        self._done = True
        try:
            await self._finish(message)
        finally:
            if self._peer.calls.get(self.request_id) is self:
                del self._peer.calls[self.request_id]

    def _refused(self, error: AuthError) -> dict[str, Any]:
        document = {"error": error.code, "error_description": error.public_message}
        return refusal(self._request, error, document, public_url=self._public_url)

    async def _send(self, message: dict[str, Any]) -> None:
        raise NotImplementedError

    async def _finish(self, message: dict[str, Any] | None) -> None:
        """Send the answer; None: there must be none."""
        raise NotImplementedError
