"""A bounded number of calls at a time, those that a request waits for before those in the background."""

from __future__ import annotations

import asyncio
from collections import deque

__all__ = ["CallSlots"]


class CallSlots:
    """Like a semaphore whose waiters can be moved ahead. Each call has a key of its own."""

    def __init__(self, size: int) -> None:
        self._free = size
        self._urgent: deque[str] = deque()
        self._background: deque[str] = deque()
        self._waiting: dict[str, asyncio.Future[None]] = {}

    async def acquire(self, key: str, *, urgent: bool) -> None:
        """Wait for a slot."""
        if self._free > 0 and not self._waiting:
            self._free -= 1
            return
        waiter = asyncio.get_running_loop().create_future()
        self._waiting[key] = waiter
        (self._urgent if urgent else self._background).append(key)
        try:
            await waiter
        except asyncio.CancelledError:
            if self._waiting.pop(key, None) is None and not waiter.cancelled():
                self.release()  # the slot had just been handed over
            raise

    def promote(self, key: str) -> None:
        """A request waits for this call now. Nothing happens when it no longer waits for a slot."""
        if key in self._waiting and key not in self._urgent:
            self._urgent.append(key)  # what stays behind in the other queue is skipped when it comes up

    def release(self) -> None:
        """Give a slot back: to the next in line, or free."""
        for queue in (self._urgent, self._background):
            while queue:
                waiter = self._waiting.pop(queue.popleft(), None)
                if waiter is not None and not waiter.done():
                    waiter.set_result(None)
                    return
        self._free += 1
