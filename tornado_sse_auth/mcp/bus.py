"""What a server has to tell its subscribers, in every process: the SDK's subscription bus on our event log."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable

from mcp.server.subscriptions import (
    PromptsListChanged,
    ResourcesListChanged,
    ResourceUpdated,
    ServerEvent,
    ToolsListChanged,
)

from ..errors import StoreUnavailableError
from ..events import EventLog, LogEvent
from ..listeners import Listeners

__all__ = ["EventLogBus"]

_log = logging.getLogger(__name__)

_KINDS: dict[str, type[ToolsListChanged] | type[PromptsListChanged] | type[ResourcesListChanged]] = {
    "tools": ToolsListChanged,
    "prompts": PromptsListChanged,
    "resources": ResourcesListChanged,
}
_NAMES = {kind: name for name, kind in _KINDS.items()}
CHANNEL = "mcp-bus"


class EventLogBus:
    """A `SubscriptionBus` of all processes that share the event log `events`; `name` tells several servers apart."""

    def __init__(self, events: EventLog, name: str = "") -> None:
        self._events = events
        self._channel = f"{CHANNEL}:{name}" if name else CHANNEL
        self._listeners: Listeners[ServerEvent] = Listeners()
        self._unsubscribe: Callable[[], None] | None = None
        self._last = 0
        self._catching_up: asyncio.Task[None] | None = None

    async def publish(self, event: ServerEvent) -> None:
        """Tell every subscriber in every process. Raises `StoreUnavailableError`."""
        if isinstance(event, ResourceUpdated):
            await self._events.publish(self._channel, {"uri": event.uri}, event="resource")
        else:
            await self._events.publish(self._channel, {}, event=_NAMES[type(event)])

    def subscribe(self, listener: Callable[[ServerEvent], None]) -> Callable[[], None]:
        """Call `listener` for each event from now on. Returns what ends it; calling that twice is once."""
        remove = self._listeners.add(listener)
        if self._unsubscribe is None:
            self._unsubscribe = self._events.subscribe(self._channel, self._on_event)

        def end() -> None:
            remove()
            if not self._listeners and self._unsubscribe is not None:
                self._unsubscribe()
                self._unsubscribe = None
                if self._catching_up is not None:
                    self._catching_up.cancel()

        return end

    def _on_event(self, event: LogEvent | None) -> None:
        if event is None:
            if self._last and self._catching_up is None:
                self._catching_up = asyncio.create_task(self._catch_up(), name=f"catch up {self._channel}")
        elif event.n > self._last:
            self._deliver(event)

    def _deliver(self, event: LogEvent) -> None:
        self._last = event.n
        if event.event == "resource":
            self._listeners.notify(ResourceUpdated(uri=json.loads(event.data)["uri"]))
        elif event.event in _KINDS:
            self._listeners.notify(_KINDS[event.event]())

    async def _catch_up(self) -> None:
        """The connection to the log was lost: tell what was published meanwhile."""
        try:
            while True:
                try:
                    found = await self._events.read(self._channel, self._last)
                except StoreUnavailableError as error:
                    _log.debug("%s is behind: %s", self._channel, error)
                    await asyncio.sleep(1.0)
                    continue
                for event in found.events:
                    if event.n > self._last:
                        self._deliver(event)
                if not found.events:
                    return
        finally:
            self._catching_up = None
