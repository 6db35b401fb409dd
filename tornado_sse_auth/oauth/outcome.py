"""What became of a call that spends something at the provider, as exceptions; nothing here ever quotes the provider.

TokenCallFailure
├── RefreshRejected     the grant is gone for good: its user must sign in again
├── ClientRejected      the provider does not accept *us*: an operator's alarm, nobody is signed out
└── TransientFailure    all else; `spent` says whether the token may have been used up
"""

from __future__ import annotations

from enum import Enum

from ..errors import InvalidRequestError

__all__ = [
    "AnotherSubject",
    "ClientRejected",
    "IdentityRejected",
    "RefreshRejected",
    "Spent",
    "TokenCallFailure",
    "TransientFailure",
]


class Spent(Enum):
    """Whether a failed call may have used up the token that it presented.

    UNSPENT: no byte of the request left, or the provider completely answered that it did not. UNKNOWN: bytes left and
    no complete answer came, or a success that cannot be read.
    """

    UNSPENT = "unspent"
    UNKNOWN = "unknown"


class TokenCallFailure(Exception):  # noqa: N818 - an outcome among others, most of them no fault of ours
    """A call of the token endpoint gave no token set. `reason` is for the log and is free of provider text."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class RefreshRejected(TokenCallFailure):
    """Permanent: `invalid_grant` (RFC 6749, section 5.2)."""


class ClientRejected(TokenCallFailure):
    """`invalid_client`, `unauthorized_client` and the like (RFC 6749, section 5.2): our configuration is wrong."""


class TransientFailure(TokenCallFailure):
    """Worth another attempt. `retry_after`: seconds the provider asks us to wait (capped), or None."""

    def __init__(self, reason: str, *, spent: Spent, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.spent = spent
        self.retry_after = retry_after


class IdentityRejected(InvalidRequestError):  # noqa: N818 - named like its siblings
    """An ID token or userinfo answer that proves nobody's identity. `reason` says which rule it broke."""

    default_message = "The sign-in could not be verified; start it again."


class AnotherSubject(IdentityRejected):
    """Userinfo speaks of somebody else than whom the access token was given for."""
