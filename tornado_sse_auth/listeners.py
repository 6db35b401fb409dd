"""Who wants to be told: a set of callbacks that cannot disturb one another."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["Listeners"]

T = TypeVar("T")
logger = logging.getLogger(__name__)


class Listeners(Generic[T]):
    """Callbacks in the order of their subscription. Not for use from several threads."""

    __slots__ = ("_callbacks",)

    def __init__(self) -> None:
        self._callbacks: dict[object, Callable[[T], None]] = {}

    def add(self, callback: Callable[[T], None]) -> Callable[[], None]:
        """Subscribe. Returns what ends this subscription; calling that twice is once."""
        ticket = object()
        self._callbacks[ticket] = callback

        def remove() -> None:
            self._callbacks.pop(ticket, None)

        return remove

    def notify(self, news: T) -> None:
        """Call everybody subscribed at this moment. Who raises is logged; who unsubscribes meanwhile is not called."""
        for ticket, callback in tuple(self._callbacks.items()):
            if ticket not in self._callbacks:
                continue
            try:
                callback(news)
            except Exception:
                logger.exception("a listener failed")

    def __len__(self) -> int:
        return len(self._callbacks)
