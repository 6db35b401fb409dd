"""What an event log promises. Every implementation passes the one suite in tests/stores."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = ["EventListener", "EventLog", "LogEvent", "LogRange"]

MAX_EVENT_BYTES = 1_048_576


@dataclass(frozen=True, slots=True)
class LogEvent:
    """One event of a channel. `n` orders the channel without a hole; `data` is text (JSON where an object was
    published)."""

    channel: str
    n: int
    event: str
    data: str


@dataclass(frozen=True, slots=True)
class LogRange:
    """What `read` found. `gap`: events between `after` and the first one here are no longer (or never were) in the
    log. `oldest` is the first number the log still holds and `newest` the last that was given out (both 0: empty)."""

    events: tuple[LogEvent, ...]
    gap: bool
    oldest: int
    newest: int


EventListener = Callable[[LogEvent], None]


class EventLog(ABC):
    """Ordered events of named channels, kept for a while. The same numbers in every process that shares the log.

    A channel's first number is the store's time in microseconds, so that a number from before a restart or an expiry
    is known as such. Methods may raise `StoreUnavailableError` within a second.
    """

    @abstractmethod
    async def start(self) -> None:
        """Make indexes, begin to follow."""

    @abstractmethod
    async def close(self) -> None:
        """End what `start` began. Twice is once."""

    @abstractmethod
    async def publish(self, channel: str, data: Any, *, event: str = "message") -> int:
        """Append an event and return its number, once it is durable. `data`: a string is kept as it is, anything else
        becomes JSON. Raises `RequestTooLargeError` above 1 MiB, `ValueError` for an event name with a line break, NUL
        or lone surrogate."""

    @abstractmethod
    async def read(self, channel: str, after: int, *, limit: int = 256) -> LogRange:
        """The events with a number above `after`, in order, at most `limit`."""

    @abstractmethod
    def subscribe(self, channel: str, listener: EventListener) -> Callable[[], None]:
        """Call `listener`, on the loop, for each event of the channel published by any process from now on, in order;
        a jump in `n` may happen when the connection to the log was lost: read the range. Returns what ends it."""
