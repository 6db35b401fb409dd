"""What the suite of event logs runs on: memory, and one MongoDB database through either driver."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

from pymongo import MongoClient
from pymongo.collection import Collection

from tests.stores.backends import connect
from tornado_sse_auth.events import EventLog, MemoryEventLog, MongoEventLog
from tornado_sse_auth.testing import ManualClock

AGE = 600.0
Events = Collection[dict[str, Any]]


@dataclass(kw_only=True)
class LogBackend:
    """An event log as several processes see it; `clock` is the injected one of them all."""

    clock: ManualClock
    stack: AsyncExitStack

    async def open(self, size: int = 1000) -> EventLog:
        """The started log of one more process."""
        raise NotImplementedError

    async def outlive(self) -> None:
        """Let all events that were published grow too old."""
        raise NotImplementedError


@dataclass(kw_only=True)
class MemoryLogBackend(LogBackend):
    """There is but one process."""

    log: MemoryEventLog | None = None

    async def open(self, size: int = 1000) -> EventLog:
        if self.log is None:
            self.log = MemoryEventLog(size, AGE, clock=self.clock)
            await self.log.start()
            self.stack.push_async_callback(self.log.close)
        return self.log

    async def outlive(self) -> None:
        self.clock.advance(AGE)


@dataclass(kw_only=True)
class MongoLogBackend(LogBackend):
    """Processes that share a database."""

    uri: str
    name: str
    driver: str

    async def open(self, size: int = 1000) -> MongoEventLog:
        database = connect(self.stack, self.driver, self.uri, self.name)
        log = MongoEventLog(database, size, AGE, clock=self.clock)
        self.stack.push_async_callback(log.close)
        await log.start()
        return log

    async def outlive(self) -> None:
        # What the server's TTL monitor does once a minute, by its own clock.
        await self.raw(lambda events: events.delete_many({}))

    async def raw(self, do: Callable[[Events], Any]) -> Any:
        """What `do` finds or changes in the collection itself, past the log."""

        def run() -> Any:
            with MongoClient[dict[str, Any]](self.uri, tz_aware=True) as client:
                return do(client[self.name]["events"])

        return await asyncio.to_thread(run)
