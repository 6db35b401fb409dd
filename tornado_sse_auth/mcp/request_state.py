"""`requestState`, which a client carries from one request to the next (SEP-2322), good at every process."""

from __future__ import annotations

import base64
import binascii
from typing import Any

from mcp.server.lowlevel.server import Server
from mcp.server.request_state import (
    AESGCMRequestStateCodec,
    InvalidRequestState,
    RequestStateBoundary,
    RequestStateSecurity,
)

from ..sealing import Keyring, UnsealError, context

__all__ = ["KeyringCodec", "share_request_state"]

_PLACE = context("mcp-request-state")


class KeyringCodec:
    """A `RequestStateCodec` that seals with the keys of a store. Whose it is, until when and for which request it is
    good, the SDK writes into it and checks."""

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring

    def seal(self, payload: bytes) -> str:
        """An opaque URL-safe token."""
        return base64.urlsafe_b64encode(self._keyring.seal(payload, _PLACE)).decode().rstrip("=")

    def unseal(self, token: str) -> bytes:
        """Reverse `seal`. Raises `InvalidRequestState`."""
        try:
            sealed = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
            return self._keyring.open(sealed, _PLACE)
        except (ValueError, binascii.Error, UnsealError) as error:
            raise InvalidRequestState("not sealed by any of our keys") from error


def share_request_state(server: Server[Any], keyring: Keyring) -> None:
    """Seal with `keyring` where `server` would use the single key that the SDK makes for a process. A policy with keys
    or a codec of the application's own stays."""
    for place, middleware in enumerate(server.middleware):
        if not isinstance(middleware, RequestStateBoundary):
            continue
        policy = middleware._security
        if isinstance(policy.codec, AESGCMRequestStateCodec) and len(policy.codec._ring) == 1:
            shared = RequestStateSecurity(
                codec=KeyringCodec(keyring),
                ttl=policy.ttl,
                bind_principal=policy.bind_principal,
                audience=policy.audience,
            )
            server.middleware[place] = RequestStateBoundary(shared, default_audience=middleware._audience)
