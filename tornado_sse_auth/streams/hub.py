"""Fan-out: the events of a channel to the streams of this process that follow it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager

from ..errors import StoreUnavailableError
from ..events.base import BEYOND, EventLog, LogEvent, LogRange
from .event import chunk, encode, parse_last_event_id
from .stream import EventStream

__all__ = ["ChannelHub"]

READ_LIMIT = 256
CONCURRENT_READS = 20  # of a process, over all channels
# Of those one at a time keeps this process busy, and for no longer: what takes longer waits for the store.
BUSY_FOR = 0.002  # seconds
RETRY_AFTER = (0.1, 0.2, 0.5, 1.0, 2.0)  # seconds between reads of a log whose store is away; the last one repeats


class ChannelHub:
    """One subscription, and one encoding of each event, for all streams that follow a channel in this process."""

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self._feeds: dict[str, _Feed] = {}
        self._reads = _Reads()

    def __len__(self) -> int:
        return len(self._feeds)

    async def close(self) -> None:
        """End the subscriptions. Twice is once."""
        feeds = list(self._feeds.values())
        self._feeds.clear()
        await asyncio.gather(*(task for feed in feeds for task in feed.close()), return_exceptions=True)

    async def follow(self, stream: EventStream, channel: str) -> None:
        """Replay to `stream` what it missed, then keep it live until it ends. Raises `StreamEnded`."""
        feed = self._feeds.get(channel)
        if feed is None:
            feed = self._feeds[channel] = _Feed(self._log, channel, self._reads)
        feed.followers += 1
        try:
            if stream.last_event_id is None:
                feed.join(stream)
            else:
                await feed.replay(stream, stream.last_event_id)
            await stream.over()
        finally:
            feed.leave(stream)
            feed.followers -= 1
            if not feed.followers:
                if self._feeds.get(channel) is feed:
                    del self._feeds[channel]
                feed.close()


class _Reads:
    """Who comes back with a crowd waits here, and not all together in the loop and in the store's connections, which
    requests need."""

    def __init__(self) -> None:
        self._all = asyncio.Semaphore(CONCURRENT_READS)
        self._busy = asyncio.Semaphore(1)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for one's turn to read."""
        async with self._all:
            await self._busy.acquire()
            with ExitStack() as busy:
                busy.callback(self._busy.release)
                timer = asyncio.get_running_loop().call_later(BUSY_FOR, busy.close)
                busy.callback(timer.cancel)
                yield


class _Feed:
    """One channel, in order, to its live streams.

    `_last` is the last event that went to them. Until the first was heard (`_heard`) it is where the log stood at about
    the time of the subscription, 0 if it was empty: what comes next may then lie below it. Each stream has its own
    position besides, so that what reaches it both by replay and live is sent once.
    """

    def __init__(self, log: EventLog, channel: str, reads: _Reads) -> None:
        self.followers = 0
        self._log = log
        self._reads = reads
        self._channel = channel
        self._live: dict[EventStream, None] = {}
        self._last: int | None = None
        self._heard = False
        self._lost = False
        self._again = False
        self._catching_up: asyncio.Task[None] | None = None
        self._unsubscribe: Callable[[], None] = log.subscribe(channel, self._on_event)
        # A connection may be lost before the first event: without a place to read from, what it carried would be, too.
        self._locating: asyncio.Task[None] | None = asyncio.create_task(self._locate(), name=f"locate {channel}")

    def close(self) -> list[asyncio.Task[None]]:
        """End the subscription; returns the tasks that are being cancelled."""
        self._unsubscribe()
        tasks = [task for task in (self._locating, self._catching_up) if task is not None]
        for task in tasks:
            task.cancel()
        return tasks

    def join(self, stream: EventStream) -> None:
        """From now on."""
        self._live[stream] = None

    def leave(self, stream: EventStream) -> None:
        """No more."""
        self._live.pop(stream, None)

    async def replay(self, stream: EventStream, last_event_id: str) -> None:
        """Send what came after `last_event_id`, waiting for room, then join at exactly that place."""
        requested = parse_last_event_id(last_event_id)
        unknown = requested is None
        stream.position = requested or 0
        while True:
            heard = self._last
            found = await self._read(stream.position)
            if found.gap or unknown:
                missing = None if unknown else stream.position
                stream.notify("gap", {"requested": missing, "oldest": found.oldest})
                unknown = False
                if not found.events:
                    stream.position = found.newest
            for event in found.events:
                await stream.put(_encode(event))
                stream.position = event.n
            await stream.room()
            # No await between this look and the join: what is published meanwhile is heard after it.
            # What was heard and is not in the log has expired: there is nothing more to read.
            last = self._last
            caught_up = last is None or last <= stream.position or (not found.events and last == heard)
            if caught_up and found.complete:
                break
        if self._last is None:
            self._last = stream.position
            self._located()
        self.join(stream)

    def _on_event(self, event: LogEvent | None) -> None:
        if event is None:
            self._lost = True
            self._catch_up()
        elif self._catching_up is not None:
            self._again = True
        elif not self._last or event.n == self._last + 1 or (not self._heard and event.n <= self._last):
            self._deliver(event)
        elif event.n > self._last:
            self._catch_up()

    def _deliver(self, event: LogEvent) -> None:
        self._last = event.n
        self._heard = True
        if self._live:
            ready = _encode(event)
            for stream in tuple(self._live):
                stream.deliver(event.n, ready)

    async def _locate(self) -> None:
        found = await self._read(BEYOND, limit=1)
        if self._last is None:
            self._last = found.newest
        self._locating = None
        if self._lost:
            self._catch_up()

    def _located(self) -> None:
        """By somebody who has read so far."""
        if self._locating is not None:
            self._locating.cancel()
            self._locating = None
        if self._lost:
            self._catch_up()

    def _catch_up(self) -> None:
        if self._catching_up is not None:
            self._again = True
        elif self._last is not None:
            self._catching_up = asyncio.create_task(self._read_on(self._last), name=f"catch up {self._channel}")

    async def _read_on(self, last: int) -> None:
        while True:
            self._again = False
            found = await self._read(last)
            if found.gap and self._lost:
                # Without a loss a jump only means that the channel expired and began anew.
                for stream in tuple(self._live):
                    stream.notify("gap", {"requested": last, "oldest": found.oldest})
            self._lost = False
            for event in found.events:
                self._deliver(event)
                last = event.n
                await asyncio.sleep(0)  # sockets get to send: a burst of ours makes nobody a slow consumer
            if found.gap and not found.events:
                last = self._last = found.newest
            if found.complete and not self._again:
                self._catching_up = None
                return

    async def _read(self, after: int, *, limit: int = READ_LIMIT) -> LogRange:
        failures = 0
        while True:
            try:
                async with self._reads.turn():
                    return await self._log.read(self._channel, after, limit=limit)
            except StoreUnavailableError:
                await asyncio.sleep(RETRY_AFTER[min(failures, len(RETRY_AFTER) - 1)])
                failures += 1


def _encode(event: LogEvent) -> bytes:
    return chunk(encode(event.data, event=event.event, id=str(event.n)))
