"""Who did what: the request at hand, and the audit log `tornado_sse_auth.audit` with one JSON object a line."""

from __future__ import annotations

import json
import logging
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import NamedTuple

from .clock import Clock

__all__ = ["AuditLog", "RequestIdFilter", "RequestInfo", "current_request"]

_log = logging.getLogger("tornado_sse_auth.audit")


class RequestInfo(NamedTuple):  # one a request: a tuple costs a third of a frozen dataclass
    """The request being served: its id, the peer's address, the client's name for itself. Tasks of the request keep it
    for as long as they run, so it holds nothing that they do not need: no header with a credential."""

    request_id: str = "-"
    remote: str = "-"
    client: str = ""


NO_REQUEST = RequestInfo()
current_request: ContextVar[RequestInfo] = ContextVar("tornado_sse_auth_request", default=NO_REQUEST)


class RequestIdFilter(logging.Filter):
    """Gives every log record a `request_id`, for formats such as `%(request_id)s`."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.request_id = current_request.get().request_id
        return True


class AuditLog:
    """Writes sign-in, sign-out, refresh, revocation, denial and the like. Never holds a secret."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def write(
        self, event: str, *, outcome: str, user_id: str = "", session_id: str = "", reason: str | None = None
    ) -> None:
        """One line. `event` and `outcome` are words from the reference, `reason` is free text of ours."""
        request = current_request.get()
        line = {
            "time": datetime.fromtimestamp(self._clock.time(), UTC).isoformat(timespec="milliseconds"),
            "event": event,
            "request_id": request.request_id,
            "user_id": user_id,
            "session_id": session_id,
            "client": request.client,
            "remote": request.remote,
            "outcome": outcome,
            "reason": reason,
        }
        _log.info("%s", json.dumps(line, ensure_ascii=True, separators=(",", ":")))
