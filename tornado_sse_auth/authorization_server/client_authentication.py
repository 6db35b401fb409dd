"""Which client calls: its id, and its secret where it has one (RFC 6749, section 2.3.1)."""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Mapping
from urllib.parse import unquote_plus

from ..errors import InvalidRequestError
from ..identity import Secret
from .clients import Client, ClientDirectory
from .endpoint import EndpointRequest
from .errors import InvalidClientError

__all__ = ["authenticate_client"]


async def authenticate_client(request: EndpointRequest, form: Mapping[str, str], clients: ClientDirectory) -> Client:
    """The client of a request. Raises `InvalidClientError` where it is unknown, fails, or uses another method than it
    registered; `InvalidRequestError` for two methods at once; `StoreUnavailableError`."""
    header = request.headers.get("Authorization")
    client_id = form.get("client_id")
    if header is not None:
        method = "client_secret_basic"
        name, secret = _basic(header)
        if "client_secret" in form or client_id not in (None, name):
            raise InvalidRequestError("The client authenticates in two ways.")
        client_id = name
    elif "client_secret" in form:
        method, secret = "client_secret_post", Secret(form["client_secret"])
    else:
        method, secret = "none", None
    if not client_id:
        raise InvalidClientError("The request names no client.")
    client = await clients.find_at_token_endpoint(client_id)
    if method not in client.auth_methods:
        raise InvalidClientError(reason=f"client {client_id[:200]!r} used {method}")
    if secret is not None and not hmac.compare_digest(secret.digest(), client.secret_digest or b""):
        raise InvalidClientError(reason=f"client {client_id[:200]!r} has another secret")
    return client


def _basic(header: str) -> tuple[str, Secret]:
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() != "basic":
        raise InvalidClientError(reason="Authorization is not Basic")
    try:
        text = base64.b64decode(encoded.strip(), validate=True).decode()
    except (binascii.Error, ValueError):
        raise InvalidClientError(reason="Basic is malformed") from None
    name, colon, secret = text.partition(":")
    if not colon or not name:
        raise InvalidClientError(reason="Basic is malformed")
    # Both are form-encoded before they are joined (RFC 6749, section 2.3.1).
    return unquote_plus(name), Secret(unquote_plus(secret))
