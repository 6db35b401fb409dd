"""`/mcp`: Streamable HTTP. This file tells the revisions apart; each has its own way of serving."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mcp.shared.inbound import (
    ERROR_CODE_HTTP_STATUS,
    MCP_PROTOCOL_VERSION_HEADER,
    InboundLadderRejection,
    classify_inbound_request,
    find_duplicated_routing_header,
    unsupported_protocol_version_rejection,
    validate_mcp_param_headers,
)
from mcp_types import PROTOCOL_VERSION_META_KEY
from mcp_types.jsonrpc import HEADER_MISMATCH, INVALID_REQUEST, ErrorData, JSONRPCNotification, JSONRPCRequest
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS

from .exchange import Exchange
from .message_stream import MessageStream
from .messages import Message, UnreadableMessage
from .stateful import StatefulHandler

__all__ = ["StreamableHTTPHandler"]

JSON = "application/json"
EVENTS = "text/event-stream"


class StreamableHTTPHandler(StatefulHandler):
    """All revisions with this transport on one path: a version header that knows no handshake, or the envelope in
    `_meta`, selects 2026-07-28; anything else is older."""

    resource = "/mcp"
    exchange: Exchange | None = None

    async def post(self) -> None:
        """One message from the client."""
        self.check_content(JSON, EVENTS)
        try:
            message, document = self.read_message()
        except UnreadableMessage as unreadable:
            self.refuse(unreadable.error)
            return
        if is_modern(self.request.headers.get(MCP_PROTOCOL_VERSION_HEADER), document):
            await self._modern(message, document)
        else:
            await self.post_stateful(message)

    async def get(self) -> None:
        """A stream of the 2025 revisions; nothing in 2026-07-28."""
        if is_modern(self.request.headers.get(MCP_PROTOCOL_VERSION_HEADER), {}):
            self._only_post()
        else:
            await self.get_stateful()

    async def delete(self) -> None:
        """The end of a session of the 2025 revisions; nothing in 2026-07-28."""
        if is_modern(self.request.headers.get(MCP_PROTOCOL_VERSION_HEADER), {}):
            self._only_post()
        else:
            await self.delete_stateful()

    def listen(self, acknowledgment: Mapping[str, Any]) -> MessageStream:
        """For `subscriptions/listen`. Raises `AuthError`."""
        return super().listen(acknowledgment) if self.exchange is None else self.exchange.listen(acknowledgment)

    def on_connection_close(self) -> None:
        """The client has gone, and so it cancels."""
        super().on_connection_close()
        if self.exchange is not None:
            self.exchange.abandon()

    # -- 2026-07-28 ------------------------------------------------------------------------------------------------

    def _only_post(self) -> None:
        self.set_header("Allow", "POST")
        self.set_status(405)
        self.finish()

    async def _modern(self, message: Message, document: dict[str, Any]) -> None:
        if isinstance(message, JSONRPCNotification):
            # This revision has none from clients; they post some all the same, and nobody reads a refusal.
            version = self.request.headers.get(MCP_PROTOCOL_VERSION_HEADER, "")
            unsupported = unsupported_protocol_version_rejection(version)
            if unsupported is not None:
                self._reject(unsupported, None)
            else:
                self.set_status(202)
                self.finish()
            return
        if not isinstance(message, JSONRPCRequest):
            self.refuse(ErrorData(code=INVALID_REQUEST, message="Clients send requests and notifications only."))
            return
        lines = self.header_lines()
        headers = dict(lines)
        route = self._route(message, document, lines, headers)
        if isinstance(route, InboundLadderRejection):
            self._reject(route, message)
            return
        self.check_access(message.method, message.params)
        self.enter()
        self.exchange = Exchange(self, message, headers)
        try:
            await self.exchange.serve(self.hosted.server, route, await self.hosted.lifespan())
        finally:
            self.exchange = None  # they know one another: what a request leaves behind must not wait for a collection

    def _route(
        self, message: JSONRPCRequest, document: dict[str, Any], lines: list[tuple[str, str]], headers: dict[str, str]
    ) -> Any:
        repeated = find_duplicated_routing_header(lines)
        if repeated is not None:
            return InboundLadderRejection(code=HEADER_MISMATCH, message=f"{repeated} header appears more than once")
        route = classify_inbound_request(document, headers=headers)
        if isinstance(route, InboundLadderRejection) or message.method != "tools/call":
            return route
        params = message.params or {}
        schema = self.hosted.repeated_in_headers(params.get("name"))
        arguments = params.get("arguments") or {}
        if schema is None or not isinstance(arguments, dict):
            return route
        if len(headers) != len(lines):  # a repeated parameter counts as one that disagrees
            return validate_mcp_param_headers(schema, arguments, _Lines(lines)) or route
        return validate_mcp_param_headers(schema, arguments, headers) or route

    def _reject(self, rejection: InboundLadderRejection, message: JSONRPCRequest | None) -> None:
        error = ErrorData(code=rejection.code, message=rejection.message, data=rejection.data)
        status = ERROR_CODE_HTTP_STATUS.get(rejection.code, 400)
        self.refuse(error, status, message.id if message is not None else None)


def is_modern(version: str | None, document: dict[str, Any]) -> bool:
    """Whether a message belongs to a revision without a handshake."""
    if version is not None:
        return version not in HANDSHAKE_PROTOCOL_VERSIONS
    params = document.get("params")
    meta = params.get("_meta") if isinstance(params, dict) else None
    return isinstance(meta, dict) and PROTOCOL_VERSION_META_KEY in meta


class _Lines(dict[str, str]):
    """Headers with their repetitions, as the kernel wants to see them: `items()` has every line."""

    def __init__(self, lines: list[tuple[str, str]]) -> None:
        super().__init__(lines)
        self._all = lines

    def items(self) -> Any:
        """Every line."""
        return self._all
