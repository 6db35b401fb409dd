"""Fan-out: the events of a channel to the streams of this process that follow it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from ..errors import StoreUnavailableError
from ..events.base import EventLog, LogEvent, LogRange
from .event import chunk, encode, parse_last_event_id
from .stream import EventStream

__all__ = ["ChannelHub"]

logger = logging.getLogger(__name__)

READ_LIMIT = 256
RETRY_AFTER = (0.1, 0.2, 0.5, 1.0, 2.0)
BEYOND = 2**62  # no log's number: reads nothing but where the log stands


class ChannelHub:
    """One subscription and one encoding of each event for all streams that follow a channel in this process."""

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self._feeds: dict[str, _Feed] = {}
        self._closed = False

    def __len__(self) -> int:
        return len(self._feeds)

    async def close(self) -> None:
        """End the subscriptions. Twice is once."""
        feeds = list(self._feeds.values())
        self._feeds.clear()
        tasks = [task for feed in feeds if (task := feed.close()) is not None]
        await asyncio.gather(*tasks, return_exceptions=True)

    async def follow(self, stream: EventStream, channel: str) -> None:
        """Replay to `stream` what it missed, then keep it live until it ends. Raises `StreamEnded`."""
        feed = self._feeds.get(channel)
        if feed is None:
            feed = self._feeds[channel] = _Feed(self._log, channel)
        feed.users += 1
        try:
            if stream.last_event_id is None:
                feed.join(stream)
            else:
                await feed.replay(stream, stream.last_event_id)
            await stream.over()
        finally:
            feed.leave(stream)
            feed.users -= 1
            if not feed.users:
                if self._feeds.get(channel) is feed:
                    del self._feeds[channel]
                feed.close()


class _Feed:
    """One channel. `last` is the number up to which everything has been delivered to the live streams; it is None
    until the log was asked or an event came. Each stream knows its own position besides, so that an event that comes
    both ways is sent once."""

    def __init__(self, log: EventLog, channel: str) -> None:
        self.users = 0
        self._log = log
        self._channel = channel
        self._live: dict[EventStream, None] = {}
        self._last: int | None = None
        self._heard = False
        self._encoded: tuple[int, bytes] = (0, b"")
        self._reading: asyncio.Task[None] | None = None
        self._again = False
        self._unsubscribe: Callable[[], None] = log.subscribe(channel, self._on_event)
        # Where the log stands now is needed when the first thing heard is that the connection was lost.
        self._read_range()

    def close(self) -> asyncio.Task[None] | None:
        """End the subscription; returns the cancelled task, if one was reading."""
        self._unsubscribe()
        if self._reading is not None:
            self._reading.cancel()
        return self._reading

    def join(self, stream: EventStream) -> None:
        """From now on."""
        self._live[stream] = None

    def leave(self, stream: EventStream) -> None:
        """No more."""
        self._live.pop(stream, None)

    async def replay(self, stream: EventStream, requested: str) -> None:
        """Send what came after `requested`, then join at exactly that place."""
        number = parse_last_event_id(requested)
        found = await self._read(number or 0, stream)
        if found.gap or number is None:
            stream.notify("gap", {"requested": number, "oldest": found.oldest})
        else:
            stream.position = number
        while True:
            for event in found.events:
                await stream.put(self._encode(event))
                stream.position = event.n
            await stream.room()
            behind = len(found.events) == READ_LIMIT or (self._last is not None and self._last > stream.position)
            if stream.ended is not None or not behind:
                break
            found = await self._read(stream.position, stream)
        if self._last is None:
            self._last = stream.position
        self.join(stream)

    async def _read(self, after: int, stream: EventStream) -> LogRange:
        failures = 0
        while True:
            try:
                return await self._log.read(self._channel, after, limit=READ_LIMIT)
            except StoreUnavailableError:
                await asyncio.sleep(RETRY_AFTER[min(failures, len(RETRY_AFTER) - 1)])
                failures += 1
