"""JSON-RPC messages as MCP carries them: read from a body, written to an answer. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mcp_types import ProgressToken
from mcp_types.jsonrpc import (
    INVALID_REQUEST,
    PARSE_ERROR,
    ErrorData,
    JSONRPCError,
    JSONRPCNotification,
    JSONRPCRequest,
    JSONRPCResponse,
    RequestId,
)
from pydantic import ValidationError
from pydantic_core import PydanticSerializationError, to_json

from ..errors import InvalidRequestError
from ..web.json_body import read_json

__all__ = [
    "ACCESS_REFUSED",
    "Message",
    "UnreadableMessage",
    "as_message",
    "encode",
    "error_message",
    "event",
    "read_message",
]

ACCESS_REFUSED = -32010
"""The code of every error of our own error table, which stands in `data` (the range that MCP leaves to servers)."""

Message = JSONRPCRequest | JSONRPCNotification | JSONRPCResponse | JSONRPCError


class UnreadableMessage(Exception):  # noqa: N818 - what the body is, not a fault of ours
    """A body that is not one JSON-RPC message; `error` says why."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.error = ErrorData(code=code, message=message)


def read_message(body: bytes, *, max_depth: int) -> tuple[Message, dict[str, Any]]:
    """The message in `body`, and the JSON object that it is, of at most `max_depth` levels. Raises `UnreadableMessage`:
    one message a request, since no client of ours sends batches (2025-03-26 alone had them)."""
    try:
        document = read_json(body, max_depth=max_depth)
    except InvalidRequestError as error:
        raise UnreadableMessage(PARSE_ERROR, error.public_message) from None
    if isinstance(document, list):
        raise UnreadableMessage(INVALID_REQUEST, "Batches are not supported: send one message a request.")
    if not isinstance(document, dict):
        raise UnreadableMessage(INVALID_REQUEST, "The body is not a JSON-RPC message.")
    return as_message(document), document


def as_message(document: Mapping[str, Any]) -> Message:
    """The message that a JSON object is. Raises `UnreadableMessage`."""
    # The presence of a member decides, not which model happens to fit: a request whose id is malformed is owed an
    # error, and must not pass for a notification.
    kind: type[Message]
    if "method" in document:
        kind = JSONRPCRequest if "id" in document else JSONRPCNotification
    else:
        kind = JSONRPCError if "error" in document else JSONRPCResponse
    try:
        return kind.model_validate(document)
    except ValidationError:
        raise UnreadableMessage(INVALID_REQUEST, "The body is not a JSON-RPC message.") from None


def encode(message: Mapping[str, Any]) -> bytes:
    """A message as compact JSON."""
    try:
        return to_json(message)
    except PydanticSerializationError:  # lone surrogates: they stand as escapes
        return json.dumps(message, separators=(",", ":")).encode()


def result_message(request_id: RequestId, result: Mapping[str, Any]) -> dict[str, Any]:
    """The answer to a request."""
    return {"jsonrpc": "2.0", "id": request_id, "result": result}


def error_message(request_id: RequestId | None, error: ErrorData) -> dict[str, Any]:
    """The refusal of a request; `None` where its id could not be read."""
    body = error.model_dump(mode="json", exclude_none=True)
    return {"jsonrpc": "2.0", "id": request_id, "error": body}


def notification(method: str, params: Mapping[str, Any] | None) -> dict[str, Any]:
    """What is told without being asked."""
    message: dict[str, Any] = {"jsonrpc": "2.0", "method": method}
    if params is not None:
        message["params"] = params
    return message


def progress_params(token: ProgressToken, progress: float, total: float | None, message: str | None) -> dict[str, Any]:
    """What a progress notification says; `token` is the one that the client gave with its request."""
    params: dict[str, Any] = {"progressToken": token, "progress": progress}
    if total is not None:
        params["total"] = total
    if message is not None:
        params["message"] = message
    return params


def event(encoded: bytes, event_id: str | None = None) -> bytes:
    """A message as one event of a stream. JSON has no line break outside of strings, and in them they are escaped."""
    if event_id is None:
        return b"event: message\ndata: %b\n\n" % encoded
    return b"id: %b\nevent: message\ndata: %b\n\n" % (event_id.encode(), encoded)
