"""The streams of 2025 revisions that belong to no request, and streams that are read on after a reconnect."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

from mcp.server.subscriptions import ResourceUpdated, ServerEvent, SubscriptionBus
from mcp.shared.subscriptions import event_to_notification

from ..errors import ForbiddenError, StoreUnavailableError
from ..events import EventLog, LogEvent, LogRange
from ..streams.event import chunk
from .access import AccessRules
from .call import RESPONSE, event_id
from .message_stream import MessageStream
from .messages import encode, event
from .peer import Peer

__all__ = ["OPENED", "StandingStreams", "read_on", "stand"]

RETRY_AFTER = 1.0  # seconds between reads of a log whose store is away
OPENED = "opened"  # names the event that says where in the log a standing stream was opened


async def read_on(stream: MessageStream, events: EventLog, channel: str, name: str, after: int) -> None:
    """Send what stands in the log of a request's stream after number `after`, and then what comes, until the response.
    Raises `StreamEnded`."""
    async with aclosing(_follow(events, channel, after, lasting=False)) as items:
        async for item in items:
            if item.data:
                await stream.put(chunk(event(item.data.encode(), event_id(name, item.n))))
            if item.event == RESPONSE:
                return


async def stand(
    stream: MessageStream, events: EventLog, channel: str, name: str, opened: int, after: int | None
) -> None:
    """Send what is said to the session and belongs to no request: after number `after`, where the client tells how far
    it has read; else from `opened` on, the number of this stream's own opening, or all there is for the first stream of
    a session. Returns when another stream has been opened: what follows is that one's. Raises `StreamEnded`."""
    if after is None:
        after = opened if await _was_open(events, channel, opened) else 0
    async with aclosing(_follow(events, channel, after, lasting=True)) as items:
        async for item in items:
            if item.event != OPENED:
                await stream.put(chunk(event(item.data.encode(), event_id(name, item.n))))
            elif item.n > opened:
                return


async def _follow(events: EventLog, channel: str, after: int, *, lasting: bool) -> AsyncGenerator[LogEvent, None]:
    """The events after `after` and those to come. One that is not `lasting` is over when its events have expired."""
    news = asyncio.Event()
    unsubscribe = events.subscribe(channel, lambda _: news.set())
    try:
        while True:
            news.clear()
            found = await _read(events, channel, after)
            for item in found.events:
                yield item
                after = item.n
            if not found.events:
                if found.gap and not lasting:
                    return
                await news.wait()
    finally:
        unsubscribe()


async def _was_open(events: EventLog, channel: str, before: int) -> bool:
    after = 0
    while True:
        found = (await _read(events, channel, after)).events
        for item in found:
            if item.n >= before:
                return False
            if item.event == OPENED:
                return True
        if not found:
            return False
        after = found[-1].n


async def _read(events: EventLog, channel: str, after: int) -> LogRange:
    while True:
        try:
            return await events.read(channel, after)
        except StoreUnavailableError:
            await asyncio.sleep(RETRY_AFTER)


class StandingStreams:
    """Tells open standing streams what changes in the server. Such news have no id: whoever was away asks anew."""

    def __init__(self, bus: SubscriptionBus, rules: AccessRules, levels: tuple[str, ...]) -> None:
        self._bus = bus
        self._rules = rules
        self._levels = levels
        self._streams: dict[MessageStream, Peer] = {}
        self._unsubscribe: Callable[[], None] | None = None

    def add(self, stream: MessageStream, peer: Peer) -> None:
        """The stream is open."""
        self._streams[stream] = peer
        peer.standing = stream
        if self._unsubscribe is None:
            self._unsubscribe = self._bus.subscribe(self._tell)

    def remove(self, stream: MessageStream) -> None:
        """It is no more."""
        peer = self._streams.pop(stream, None)
        if peer is not None and peer.standing is stream:
            peer.standing = None
        if not self._streams and self._unsubscribe is not None:
            self._unsubscribe()
            self._unsubscribe = None

    def _tell(self, event: ServerEvent) -> None:
        encoded = encode(_wire(event))
        for stream, peer in tuple(self._streams.items()):
            if not isinstance(event, ResourceUpdated) or self._wants(stream, peer, event.uri):
                stream.push(encoded)

    def _wants(self, stream: MessageStream, peer: Peer, uri: str) -> bool:
        if uri not in peer.uris:
            return False
        try:
            self._rules.resource(uri).check(stream.user, self._levels)
        except ForbiddenError:
            return False
        return True


def _wire(event: ServerEvent) -> dict[str, Any]:
    message = event_to_notification(event, {}).model_dump(mode="json", by_alias=True, exclude_none=True)
    message["params"].pop("_meta", None)
    return {"jsonrpc": "2.0", **message}
