"""`initialize`, and what is told without being asked: messages that have no answer on the way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import anyio
from mcp.server.connection import Connection
from mcp.server.runner import ServerRunner, modern_error_data
from mcp.shared.dispatcher import CallOptions
from mcp.shared.exceptions import NoBackChannelError
from mcp.shared.message import ServerMessageMetadata
from mcp.shared.transport_context import TransportContext
from mcp_types.jsonrpc import JSONRPCRequest, RequestId

from .messages import error_message, result_message

__all__ = ["Handshake", "Silent", "shake_hands"]


class Silent:
    """The kernel's dispatch context of a message that nothing is sent for before, or ever."""

    can_send_request = False

    def __init__(self, headers: Mapping[str, str], request: Any, request_id: RequestId | None = None) -> None:
        self.transport = TransportContext(kind="streamable-http", can_send_request=False, headers=headers)
        self.request_id = request_id
        self.message_metadata = ServerMessageMetadata(request_context=request)

    @property
    def cancel_requested(self) -> anyio.Event:
        """Never set."""
        return anyio.Event()

    async def send_raw_request(
        self, method: str, params: Mapping[str, Any] | None, opts: CallOptions | None = None
    ) -> dict[str, Any]:
        """Raises `NoBackChannelError`."""
        raise NoBackChannelError(method)

    async def notify(self, method: str, params: Mapping[str, Any] | None, opts: CallOptions | None = None) -> None:
        """There is nowhere to send it."""

    async def progress(self, progress: float, total: float | None = None, message: str | None = None) -> None:
        """There is nowhere to send it."""


@dataclass(frozen=True)
class Handshake:
    """The answer to `initialize`, and the connection it made; None where it was refused."""

    answer: dict[str, Any]
    connection: Connection | None


async def shake_hands(runner: ServerRunner[Any], request: JSONRPCRequest, context: Silent) -> Handshake:
    """Let the kernel answer `initialize`."""
    try:
        result = await runner.on_request(context, request.method, request.params)
    except Exception as error:
        return Handshake(error_message(request.id, modern_error_data(error)), None)
    return Handshake(result_message(request.id, result), runner.connection)
