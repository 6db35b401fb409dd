"""Streams that carry JSON-RPC messages and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..streams import EventStream
from ..streams.event import chunk
from ..streams.reasons import CloseReason
from .messages import event

__all__ = ["HEADERS_WITHIN", "MessageStream"]

# Seconds after which a call that is still running gets the headers of a stream. The Python SDK's OAuth client sends no
# other request until it has them (python-sdk#3243): four calls of two seconds took eight.
HEADERS_WITHIN = 0.25


class MessageStream(EventStream):
    """Has no room for our own events: where others tell the client that its user is needed, this one ends, and the
    next request's 401 or 403 says why.

    `first` leaves with the headers. `last`, a message, is sent when the stream is ended from our side, and `on_end` is
    called once when it has ended, whoever ended it.
    """

    __slots__ = ("first", "last", "on_end")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.first = b""
        self.last: bytes | None = None
        self.on_end: Callable[[], None] | None = None

    def greeting(self, retry: float) -> bytes:
        """The first message, if there is one."""
        first, self.first = self.first, b""
        return first

    def notify(self, event_name: str, data: Mapping[str, Any]) -> None:
        """Never an event of ours: the end instead, and with it the last message."""
        if event_name == "auth_required":
            self.end(CloseReason.REAUTHORIZATION)
        elif event_name == "end" and self.last is not None:
            self.write(chunk(event(self.last)))

    def end(self, reason: str, *, retry: float | None = None) -> None:
        """End the stream. The first call counts."""
        was_open = self.ended is None
        super().end(reason, retry=retry)
        if was_open and self.ended is not None and self.on_end is not None:
            self.on_end()

    def push(self, encoded: bytes, event_id: str | None = None) -> None:
        """Send a message without waiting. A client that reads too slowly ends as `slow_consumer`: whoever has a
        message for many does not wait for one."""
        if self.ended is not None:
            return
        if self._opened.queued > self._registry.max_buffer:
            self.end(CloseReason.SLOW_CONSUMER)
        else:
            self.write(chunk(event(encoded, event_id)))
