"""What an event log promises. Every implementation passes the one suite in tests/stores."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..errors import RequestTooLargeError

__all__ = ["MAX_EVENT_BYTES", "RANGE_BYTES", "EventListener", "EventLog", "LogEvent", "LogRange", "event_text"]

MAX_EVENT_BYTES = 1_048_576
RANGE_BYTES = 262_144
BEYOND = 2**63 - 1  # no event's number: a read after it tells where the log stands, and waits for nobody


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
    """What `read` found. `gap`: events between `after` and the last one here are no longer (or never were) in the log.
    `oldest` is the first number the log still holds and `newest` the last that was given out (both 0: empty).

    After a gap a follower goes on from the last event here, or from `newest` where there is none."""

    events: tuple[LogEvent, ...]
    gap: bool
    oldest: int
    newest: int

    @property
    def complete(self) -> bool:
        """Whether there was nothing more to read."""
        return not self.events or self.events[-1].n >= self.newest


EventListener = Callable[[LogEvent | None], None]


def event_text(data: Any, event: str) -> str:
    """The text that is kept of an event: a string as it is, anything else as JSON.

    Raises `RequestTooLargeError` above 1 MiB of UTF-8; `ValueError` for an event name with a line break, NUL or lone
    surrogate, a string with a lone surrogate, and what JSON has no word for."""
    if any(character in event for character in "\r\n\0"):
        raise ValueError("an event name has no line break and no NUL")
    event.encode()
    if isinstance(data, str):
        text = data
    else:
        try:
            text = json.dumps(data, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
            text.encode()
        except UnicodeEncodeError:
            text = json.dumps(data, separators=(",", ":"), allow_nan=False)
        except TypeError as error:
            raise ValueError("the event's data is not JSON") from error
    if len(text.encode()) > MAX_EVENT_BYTES:
        raise RequestTooLargeError("An event may be at most 1 MiB.")
    return text


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

    @property
    @abstractmethod
    def feed_alive(self) -> bool:
        """Whether events of other processes are arriving; while False, subscribers may be behind."""

    @property
    def feed_delay(self) -> float | None:
        """Seconds that the newest event took to arrive here; None where none came yet or there is nothing to tell."""
        return None

    @abstractmethod
    async def publish(self, channel: str, data: Any, *, event: str = "message") -> int:
        """Append an event and return its number, once it is durable. Raises what `event_text` raises.

        After a `StoreUnavailableError` the event may or may not have been appended."""

    @abstractmethod
    async def read(self, channel: str, after: int, *, limit: int = 256) -> LogRange:
        """The events with a number above `after`, in order, at most `limit`. 0 stands for "all there is" and has no
        gap; a number above `newest` is one of another log: a gap, and everything there is.

        Who asks may hold the answer for as long as a client takes to read it: a log that makes a copy of each event
        for it ends it with the one that fills `RANGE_BYTES`."""

    @abstractmethod
    def subscribe(self, channel: str, listener: EventListener) -> Callable[[], None]:
        """Call `listener`, on the loop, for each event of the channel published by any process from now on, in order.
        Returns what ends it. A listener that raises is logged and disturbs nobody.

        `listener(None)` says that the connection to the log was lost for longer than it could make up for: read the
        range after the last event seen."""
