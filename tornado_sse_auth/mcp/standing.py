"""The streams of 2025 revisions that belong to no request, and streams that are read on after a reconnect."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from mcp.server.subscriptions import ResourceUpdated, ServerEvent, SubscriptionBus
from mcp.shared.subscriptions import event_to_notification

from ..errors import ForbiddenError, StoreUnavailableError
from ..events import EventLog
from ..streams.event import chunk
from .access import AccessRules
from .call import RESPONSE, event_id
from .message_stream import MessageStream
from .messages import encode, event
from .peer import Peer

__all__ = ["StandingStreams", "read_on"]

RETRY_AFTER = 1.0  # seconds between reads of a log whose store is away
BEYOND = 2**62  # above every number: what is read after it says where the log stands


async def read_on(stream: MessageStream, events: EventLog, channel: str, name: str, after: int | None) -> None:
    """Send what stands in the log after number `after` (None: from now on), and then what comes, until the response.
    Raises `StreamEnded`; runs until the stream is cancelled where there is no response to come."""
    news = asyncio.Event()
    unsubscribe = events.subscribe(channel, lambda _: news.set())
    try:
        if after is None:
            after = await _newest(events, channel)
        while True:
            news.clear()
            try:
                found = await events.read(channel, after)
            except StoreUnavailableError:
                await asyncio.sleep(RETRY_AFTER)
                continue
            for item in found.events:
                if item.data:
                    await stream.put(chunk(event(item.data.encode(), event_id(name, item.n))))
                after = item.n
                if item.event == RESPONSE:
                    return
            if not found.events:
                if found.gap and name != "0":
                    return  # its events have expired, and the response with them
                await news.wait()
    finally:
        unsubscribe()


async def _newest(events: EventLog, channel: str) -> int:
    while True:
        try:
            return (await events.read(channel, BEYOND, limit=1)).newest
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
