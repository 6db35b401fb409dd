"""Events in the memory of one process: a ring for each channel."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any

from ..clock import Clock, SystemClock
from .base import EventListener, EventLog, LogEvent, LogRange, event_text
from .subscriptions import Subscriptions

__all__ = ["MemoryEventLog"]


class MemoryEventLog(EventLog):
    """The last `size` events of a channel, none older than `age` seconds; beyond `channels` channels the one that was
    longest neither read nor written is dropped."""

    def __init__(
        self, size: int = 1000, age: float = 600.0, channels: int = 10_000, *, clock: Clock | None = None
    ) -> None:
        if size < 1 or age <= 0 or channels < 1:
            raise ValueError("size, age and channels must be positive")
        self._size = size
        self._age = age
        self._limit = channels
        self._clock = clock or SystemClock()
        self._channels: OrderedDict[str, deque[tuple[float, LogEvent]]] = OrderedDict()
        self._subscriptions = Subscriptions()
        # The highest number ever given: a channel that begins anew begins above it, whatever the clock did.
        self._highest = 0

    async def start(self) -> None:
        """Nothing needs to be made."""

    async def close(self) -> None:
        """Nothing was begun."""

    @property
    def feed_alive(self) -> bool:
        """Always: there is no other process."""
        return True

    async def publish(self, channel: str, data: Any, *, event: str = "message") -> int:
        text = event_text(data, event)
        now = self._clock.time()
        ring = self._ring(channel, now)
        if ring is None:
            ring = self._channels[channel] = deque(maxlen=self._size)
            if len(self._channels) > self._limit:
                self._channels.popitem(last=False)
        n = ring[-1][1].n + 1 if ring else max(int(now * 1_000_000), self._highest + 1)
        self._highest = max(self._highest, n)
        entry = LogEvent(channel, n, event, text)
        ring.append((now, entry))
        if channel in self._subscriptions:
            # Not at once: as with events from elsewhere, a listener never runs inside the call that published.
            asyncio.get_running_loop().call_soon(self._subscriptions.notify, entry)
        return n

    async def read(self, channel: str, after: int, *, limit: int = 256) -> LogRange:
        ring = self._ring(channel, self._clock.time())
        if ring is None:
            return LogRange((), gap=after > 0, oldest=0, newest=0)
        oldest, newest = ring[0][1].n, ring[-1][1].n
        foreign = after > newest
        start = oldest if after <= 0 or foreign else max(after + 1, oldest)
        # Numbers have no hole, so a number is a position.
        first = start - oldest
        events = tuple(ring[position][1] for position in range(first, min(first + limit, len(ring))))
        return LogRange(events, gap=foreign or 0 < after < oldest - 1, oldest=oldest, newest=newest)

    def subscribe(self, channel: str, listener: EventListener) -> Callable[[], None]:
        return self._subscriptions.add(channel, listener)

    def _ring(self, channel: str, now: float) -> deque[tuple[float, LogEvent]] | None:
        """The channel's events without the expired ones; None when nothing is left."""
        ring = self._channels.get(channel)
        if ring is None:
            return None
        while ring and ring[0][0] <= now - self._age:
            ring.popleft()
        if not ring:
            del self._channels[channel]
            return None
        self._channels.move_to_end(channel)
        return ring
