"""What is due when: a heap in which each key has one due time. Pure."""

from __future__ import annotations

import heapq
from collections.abc import Hashable
from itertools import count
from typing import Generic, TypeVar

__all__ = ["Deadlines"]

K = TypeVar("K", bound=Hashable)


class Deadlines(Generic[K]):
    """`set` and `discard` cost O(log n), `due` in proportion to what is due. Any one scale of time.

    What was replaced or discarded stays in the heap until it surfaces or such entries outnumber the live ones.
    """

    __slots__ = ("_heap", "_live", "_tickets")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, K]] = []
        self._live: dict[K, tuple[float, int]] = {}
        self._tickets = count()

    def __len__(self) -> int:
        return len(self._live)

    def __contains__(self, key: K) -> bool:
        return key in self._live

    def set(self, key: K, when: float) -> None:
        """Make `key` due at `when`, whatever it was before."""
        ticket = next(self._tickets)
        self._live[key] = (when, ticket)
        heapq.heappush(self._heap, (when, ticket, key))
        self._compact()

    def discard(self, key: K) -> None:
        """Forget `key`; nothing happens when it is not there."""
        if self._live.pop(key, None) is not None:
            self._compact()

    def when(self, key: K) -> float | None:
        """When `key` is due; None when it is not there."""
        entry = self._live.get(key)
        return entry[0] if entry is not None else None

    def times(self) -> list[float]:
        """When everything is due, in no order; costs O(n)."""
        return [when for when, _ in self._live.values()]

    @property
    def first(self) -> tuple[float, K] | None:
        """What is due first, and when; None when there is nothing."""
        while self._heap and self._live.get(self._heap[0][2]) != self._heap[0][:2]:
            heapq.heappop(self._heap)
        return (self._heap[0][0], self._heap[0][2]) if self._heap else None

    @property
    def earliest(self) -> float | None:
        """When the first of all is due; None when there is none."""
        first = self.first
        return None if first is None else first[0]

    def due(self, now: float) -> list[K]:
        """Take out what is due at or before `now`, in order."""
        taken: list[K] = []
        heap, live = self._heap, self._live
        while heap and heap[0][0] <= now:
            when, ticket, key = heapq.heappop(heap)
            if live.get(key) == (when, ticket):
                del live[key]
                taken.append(key)
        return taken

    def _compact(self) -> None:
        if not self._live:
            self._heap.clear()  # a key that is done must not be held until its time would have come
        elif len(self._heap) > 2 * len(self._live) + 64:
            self._heap = [(when, ticket, key) for key, (when, ticket) in self._live.items()]
            heapq.heapify(self._heap)
