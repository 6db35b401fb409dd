"""How an error of our error table reaches an MCP client, as a JSON-RPC message. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from mcp_types.jsonrpc import ErrorData, JSONRPCRequest

from ..errors import AuthError, ForbiddenError, InsufficientPermissionError, InsufficientSubscriptionError
from .messages import ACCESS_REFUSED, error_message, result_message

__all__ = ["ScopeOutOfReachError", "refusal", "refusal_status"]

ERROR_META_KEY = "tornado-sse-auth/error"


class ScopeOutOfReachError(ForbiddenError):
    """A scope lacks that no sign-in will bring: a challenge would send the client round in circles."""

    code = "insufficient_scope"
    default_message = "The account does not have a scope that this needs."


def refusal_status(error: AuthError) -> int:
    """The HTTP status. What no sign-in can bring is 200: on a 403 clients throw, or sign in again in a loop."""
    return HTTPStatus.OK if _lasts(error) else error.status


def refusal(
    request: JSONRPCRequest, error: AuthError, document: Mapping[str, Any], *, public_url: str
) -> dict[str, Any]:
    """The answer to `request`. `document` is the error table's object, for programs.

    A tool that asks for a permission or a subscription answers with a result that the model can read.
    """
    if not _lasts(error):
        refused = ErrorData(code=ACCESS_REFUSED, message=error.public_message, data=dict(document))
        return error_message(request.id, refused)
    text = f"{error.public_message} The user can find out more at {public_url}."
    if request.method != "tools/call":
        return error_message(request.id, ErrorData(code=ACCESS_REFUSED, message=text, data=dict(document)))
    return result_message(
        request.id,
        {
            "content": [{"type": "text", "text": text}],
            "isError": True,
            "resultType": "complete",
            "_meta": {ERROR_META_KEY: dict(document)},
        },
    )


def _lasts(error: AuthError) -> bool:
    return isinstance(error, InsufficientPermissionError | InsufficientSubscriptionError | ScopeOutOfReachError)
