"""The audit log of this process, kept for a while for the users it speaks of."""

from __future__ import annotations

import json
import logging
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from cachetools import LRUCache

__all__ = ["AuditTrail"]

USERS = 10_000
LINES = 50
SHOWN = ("time", "event", "outcome", "reason")

Line = Mapping[str, Any]


class AuditTrail(logging.Handler):
    """A handler for the logger `tornado_sse_auth.audit` that remembers the last 50 lines of each of 10 000 users, and
    tells `on_line(user_id, line)` of each new one. A line holds what its own user may see."""

    def __init__(self, on_line: Callable[[str, Line], None]) -> None:
        super().__init__()
        self._lines: LRUCache[str, deque[Line]] = LRUCache(maxsize=USERS)
        self._on_line = on_line

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the line. One without a user is nobody's."""
        try:
            written = json.loads(record.getMessage())
            user_id = written["user_id"]
        except (ValueError, KeyError):
            self.handleError(record)
            return
        if not user_id:
            return
        line = {name: written[name] for name in SHOWN}
        self._lines.setdefault(user_id, deque(maxlen=LINES)).append(line)
        self._on_line(user_id, line)

    def of(self, user_id: str) -> list[Line]:
        """The user's lines, oldest first."""
        return list(self._lines.get(user_id, ()))
