"""Why a stream ended: the words of the `end` event and of `stream.closed.<reason>`."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["CloseReason"]


class CloseReason(StrEnum):
    """COMPLETED is the handler's own end of its body; clients are told nothing then, for the handler said it all."""

    CLIENT = "client"
    COMPLETED = "completed"
    ERROR = "error"
    INSUFFICIENT_PERMISSION = "insufficient_permission"
    INSUFFICIENT_SCOPE = "insufficient_scope"
    INSUFFICIENT_SUBSCRIPTION = "insufficient_subscription"
    REAUTHORIZATION = "reauthorization"
    REVOKED = "revoked"
    SERVER_SHUTDOWN = "server_shutdown"
    SESSION_EXPIRED = "session_expired"
    SLOW_CONSUMER = "slow_consumer"
