"""Who follows which channel in this process."""

from __future__ import annotations

from collections.abc import Callable

from ..listeners import Listeners
from .base import EventListener, LogEvent

__all__ = ["Subscriptions"]


class Subscriptions:
    """The listeners of each channel that has any."""

    def __init__(self) -> None:
        self._channels: dict[str, Listeners[LogEvent | None]] = {}

    def add(self, channel: str, listener: EventListener) -> Callable[[], None]:
        """Subscribe. Returns what ends it; calling that twice is once."""
        listeners = self._channels.setdefault(channel, Listeners())
        remove = listeners.add(listener)

        def end() -> None:
            remove()
            if not listeners and self._channels.get(channel) is listeners:
                del self._channels[channel]

        return end

    def __contains__(self, channel: object) -> bool:
        return channel in self._channels

    def notify(self, event: LogEvent) -> None:
        """Tell the listeners of its channel."""
        listeners = self._channels.get(event.channel)
        if listeners is not None:
            listeners.notify(event)

    def lost(self) -> None:
        """Tell everybody that there may be a hole."""
        for listeners in tuple(self._channels.values()):
            listeners.notify(None)
