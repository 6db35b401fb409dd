"""One writer for a channel in each process: what is published at the same time is appended together."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from ..errors import StoreUnavailableError

__all__ = ["Append", "ChannelWriter", "Entry"]

logger = logging.getLogger(__name__)

BATCH_EVENTS = 100
BATCH_BYTES = 4_194_304


@dataclass(frozen=True, slots=True)
class Entry:
    """What is to be appended."""

    event: str
    data: str


# Appends the entries, in order, under numbers without a hole, and returns the number of each.
Append = Callable[[Sequence[Entry]], Awaitable[Sequence[int]]]
Waiting = tuple[Entry, "asyncio.Future[int]"]


class ChannelWriter:
    """Appends in batches, one at a time, as long as anything waits."""

    def __init__(self, append: Append) -> None:
        self._append = append
        self._queue: deque[Waiting] = deque()
        self._task: asyncio.Task[None] | None = None

    @property
    def idle(self) -> bool:
        """Whether nothing waits or runs."""
        return self._task is None

    async def write(self, entry: Entry) -> int:
        """The entry's number. Raises `StoreUnavailableError`; the entry may have been appended all the same."""
        outcome: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._queue.append((entry, outcome))
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="append events")
        return await outcome

    async def close(self) -> None:
        """Refuse what waits, give up what runs."""
        task = self._task
        self._fail(list(self._queue), "the event log is closed")
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _run(self) -> None:
        batch: list[Waiting] = []
        try:
            while batch := self._take():
                numbers = await self._append([entry for entry, _ in batch])
                for (_, outcome), n in zip(batch, numbers, strict=True):
                    if not outcome.done():
                        outcome.set_result(n)
        except StoreUnavailableError as error:
            # Who came later waits no longer than who came first: nobody for a second store that does not answer.
            self._fail([*batch, *self._queue], error.reason or "the store is away")
        except BaseException:
            self._fail([*batch, *self._queue], "events were not appended")
            raise
        finally:
            self._task = None

    def _take(self) -> list[Waiting]:
        batch: list[Waiting] = []
        size = 0
        while self._queue and len(batch) < BATCH_EVENTS and size < BATCH_BYTES:
            batch.append(self._queue.popleft())
            size += len(batch[-1][0].data)
        return batch

    def _fail(self, waiting: Sequence[Waiting], reason: str) -> None:
        self._queue.clear()
        for _, outcome in waiting:
            if not outcome.done():
                outcome.set_exception(StoreUnavailableError(reason=reason))
