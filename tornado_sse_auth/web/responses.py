"""The one place where an `AuthError` becomes a status, headers and a body."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from http import HTTPStatus

from tornado.web import HTTPError

from ..errors import (
    AuthenticationRequiredError,
    AuthError,
    InsufficientScopeError,
    InvalidRequestError,
    InvalidTokenError,
    MethodNotAllowedError,
    NotFoundError,
    RequestTooLargeError,
    ServerError,
    StatusError,
)

__all__ = ["Answer", "as_auth_error", "error_answer"]


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole response but for what the server adds."""

    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)


def as_auth_error(error: BaseException | None, status: int = 500) -> AuthError:
    """The error to answer with, for whatever a handler raised. What is not ours and not the client's fault is a
    `ServerError`, which tells nothing."""
    if isinstance(error, AuthError):
        return error
    if isinstance(error, HTTPError):
        status = error.status_code
        reason = f"{status} {error.log_message or ''}"
    else:
        reason = repr(error) if error is not None else str(status)
    if status == HTTPStatus.NOT_FOUND:
        return NotFoundError(reason=reason)
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        return MethodNotAllowedError(reason=reason)
    if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return RequestTooLargeError(reason=reason)
    if status == HTTPStatus.BAD_REQUEST:
        return InvalidRequestError(reason=reason)
    if status != HTTPStatus.INTERNAL_SERVER_ERROR:
        return StatusError(status, reason=reason)
    return ServerError(reason=reason)


def error_answer(
    error: AuthError,
    *,
    request_id: str,
    resource_metadata: str | None,
    scopes: Iterable[str] = (),
    presented: bool = False,
    authorization_url: str | None = None,
) -> Answer:
    """The answer to `error`: JSON, `no-store`, a challenge (RFC 6750, section 3; RFC 9728, section 5.1) where it
    helps. `scopes`: what the resource needs; `presented`: the request carried a credential."""
    body: dict[str, str] = {"error": error.code, "error_description": error.public_message}
    headers = {"Content-Type": "application/json; charset=utf-8", "Cache-Control": "no-store"}
    challenge: dict[str, str] = {}
    if isinstance(error, AuthenticationRequiredError):
        url = error.authorization_url or authorization_url
        if url:
            body["authorization_url"] = url
        if isinstance(error, InvalidTokenError) or presented:
            challenge["error"] = "invalid_token"
            challenge["error_description"] = error.public_message
        wanted = frozenset(scopes)
    elif isinstance(error, InsufficientScopeError):
        challenge["error"] = error.code
        wanted = error.required | frozenset(scopes)
    else:
        wanted = frozenset()
    if wanted:
        challenge["scope"] = " ".join(sorted(wanted))
    if resource_metadata is not None:
        challenge["resource_metadata"] = resource_metadata
    if error.status == HTTPStatus.UNAUTHORIZED or isinstance(error, InsufficientScopeError):
        parameters = ", ".join(f'{name}="{_quoted(value)}"' for name, value in challenge.items())
        headers["WWW-Authenticate"] = f"Bearer {parameters}".strip()
    if error.retry_after is not None:
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after)))
    body["request_id"] = request_id
    return Answer(error.status, json.dumps(body).encode(), headers)


def _quoted(value: str) -> str:
    """The inside of a quoted-string (RFC 9110, section 5.6.4), with what cannot stand there left out."""
    printable = "".join(char for char in value if " " <= char <= "~")
    return printable.replace("\\", "\\\\").replace('"', '\\"')
