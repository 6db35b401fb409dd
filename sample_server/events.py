"""The sample's own handlers: `/events`, `/publish`, `/me`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from tornado.web import RequestHandler

from tornado_sse_auth import EventStream, SSEAuthMixin, UserContext
from tornado_sse_auth.periodic import MonotonicPeriodicCallback

__all__ = ["EventsHandler", "MeHandler", "PublishHandler", "Ticker"]

SLOTS = 20  # of a second


def channel_of(user: UserContext) -> str:
    """The channel on which a user's own events are published."""
    return f"user:{user.user_id}"


class Ticker:
    """Sends `tick` {seq, token_expires_in} each second to the streams that follow it: one timer for all of them, which
    takes them by turns, so that thousands do not hold up the loop."""

    def __init__(self) -> None:
        self._slots: list[dict[EventStream, int]] = [{} for _ in range(SLOTS)]
        self._hand = 0
        self._newest = 0
        self._periodic = MonotonicPeriodicCallback(self._tick, 1000 / SLOTS)

    def start(self) -> None:
        """Begin to tick."""
        self._periodic.start()

    def stop(self) -> None:
        """Stop ticking."""
        self._periodic.stop()

    @contextmanager
    def follow(self, stream: EventStream) -> Iterator[None]:
        """Tick to `stream` as long as the block lasts."""
        self._newest = (self._newest + 1) % SLOTS
        slot = self._slots[self._newest]
        slot[stream] = 0
        try:
            yield
        finally:
            del slot[stream]

    def _tick(self) -> None:
        self._hand = (self._hand + 1) % SLOTS
        slot = self._slots[self._hand]
        for stream, sequence in list(slot.items()):
            slot[stream] = sequence + 1
            ends = stream.upstream_expires_at
            left = None if ends is None else max(0, int(ends - time.time()))
            stream.offer({"seq": sequence + 1, "token_expires_in": left}, event="tick")


class EventsHandler(SSEAuthMixin, RequestHandler):
    """`/events`: an `open` event at once, a `tick` each second, and what the user publishes as `message`."""

    def initialize(self, ticker: Ticker) -> None:
        """`ticker`: the process's one timer."""
        self._ticker = ticker

    async def get(self) -> None:
        """Lives until one side ends it."""
        async with self.event_stream() as stream:
            with self._ticker.follow(stream):
                await stream.follow(channel_of(self.current_user))


class PublishHandler(SSEAuthMixin, RequestHandler):
    """`/publish`: a JSON document for every open `/events` stream of the same user."""

    required_scopes = {"events:write"}
    max_body = 4 * 1024 * 1024

    async def post(self) -> None:
        """202 with the event's id."""
        self.json_body()  # refuses what is none; what is one arrives as it was posted
        number = await self.sse_auth.events.publish(channel_of(self.current_user), self.request.body.decode("utf-8"))
        self.set_status(202)
        self.finish({"id": str(number)})


class MeHandler(SSEAuthMixin, RequestHandler):
    """`/me`: the user context."""

    def get(self) -> None:
        """As JSON."""
        user: UserContext = self.current_user
        self.finish(
            {
                "user_id": user.user_id,
                "session_id": user.session_id,
                "scopes": sorted(user.scopes),
                "permissions": sorted(user.permissions),
                "subscription": user.subscription,
                "claims": dict(user.claims),
            }
        )
