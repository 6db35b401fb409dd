"""Events in MongoDB, for many processes."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from bson import Int64
from pymongo import IndexModel, ReturnDocument
from pymongo.errors import BulkWriteError, DuplicateKeyError
from pymongo.read_concern import ReadConcern

from ..clock import Clock, SystemClock
from ..errors import StoreUnavailableError
from ..mongodb import (
    ChangeFeed,
    Database,
    Primary,
    bounded,
    collection,
    make_indexes,
    require_replica_set,
    settled,
    undisturbed,
)
from .base import BEYOND, RANGE_BYTES, EventListener, EventLog, LogEvent, LogRange, event_text
from .mongo_channel import ChannelWriter, Entry
from .subscriptions import Subscriptions

__all__ = ["MongoEventLog"]

logger = logging.getLogger(__name__)

Document = dict[str, Any]

INDEXES = (IndexModel("ends_at", name="ends_at", expireAfterSeconds=0),)
DUPLICATE_KEY = 11000
ATTEMPTS = 200  # of a batch, while other processes append to the same channel; the bound of a call comes first
LONGEST_STEP_BACK = 0.02  # seconds
# The number of no event: this document says where a channel begins.
BEGINNING = 0
LAST = Int64(BEYOND)
# Numbers of events are the server's time in microseconds at first, and then count.
MICROSECONDS: Document = {"$multiply": [{"$toLong": "$$NOW"}, 1000]}
FEED = (
    {
        "$match": {
            "$or": [
                {"operationType": "insert", "documentKey._id.n": {"$gt": BEGINNING}},
                {"operationType": "invalidate"},
            ]
        }
    },
    {"$project": {"operationType": 1, "fullDocument": 1, "wallTime": 1}},
)


class MongoEventLog(EventLog):
    """The last `size` events of a channel, none much older than `age` seconds, in the collection `events` of a Motor
    or PyMongo `AsyncDatabase` whose client the caller closes.

    Needs a replica set: events arrive by a change stream. Every call ends within a second. An event is known to a
    majority before its number is returned, and before it is delivered. Several processes may publish to a channel: the
    unique number decides who is first, who is second tries the next one.
    """

    def __init__(self, database: Database, size: int = 1000, age: float = 600.0, *, clock: Clock | None = None) -> None:
        if size < 1 or age <= 0:
            raise ValueError("size and age must be positive")
        clock = clock or SystemClock()
        self._database = database
        self._primary = Primary(database, clock)
        self._size = size
        self._age = timedelta(seconds=age)
        self._events = collection(database, "events")
        # An event that only the primary knows may be taken back, and its number be given out again.
        self._durable = self._events.with_options(read_concern=ReadConcern("majority"))
        self._confirmed = self._events.with_options(read_concern=ReadConcern("linearizable"))
        self._writers: dict[str, ChannelWriter] = {}
        self._subscriptions = Subscriptions()
        self._feed = ChangeFeed(
            self._events,
            FEED,
            on_change=self._on_change,
            on_loss=self._subscriptions.lost,
            clock=clock,
        )

    async def start(self) -> None:
        """Make the index, begin to follow. Raises `ConfigurationError` for a server that is no replica set or refuses
        us, `StoreUnavailableError` where none answers within five seconds."""
        await require_replica_set(self._database)
        await make_indexes((self._events, INDEXES))
        await self._feed.start()

    async def close(self) -> None:
        await self._feed.close()
        for writer in list(self._writers.values()):
            await writer.close()

    @property
    def feed_alive(self) -> bool:
        """Whether the change stream is open and answered within the last five seconds."""
        return self._feed.alive

    @property
    def feed_delay(self) -> float | None:
        return self._feed.delay

    async def publish(self, channel: str, data: Any, *, event: str = "message") -> int:
        entry = Entry(event, event_text(data, event))
        writer = self._writers.get(channel)
        if writer is None:
            writer = self._writers[channel] = ChannelWriter(partial(self._append, channel))
        try:
            return await writer.write(entry)
        finally:
            if writer.idle and self._writers.get(channel) is writer:
                del self._writers[channel]

    @undisturbed
    async def read(self, channel: str, after: int, *, limit: int = 256) -> LogRange:
        with bounded():
            knows_all = self._primary.knows_all
            first, newest, events = await self._look(channel, after, limit)
            # Looked at again: the driver may have gone on to another primary meanwhile.
            if newest < after < BEYOND and not (knows_all and self._primary.knows_all):
                newest = await self._primary.shown_by(partial(self._newest, channel))
                if newest >= after:
                    first, newest, events = await self._look(channel, after, limit)
            if not newest:
                return LogRange((), gap=after > 0, oldest=0, newest=0)
            oldest = max(first, newest - self._size + 1)
            foreign = after > newest
            start = oldest if after <= 0 or foreign else max(after + 1, oldest)
            if foreign or (events and events[0].n < start):
                events = tuple(map(_event, await self._rows(_range(channel, start, limit))))
        if events:
            newest = max(newest, events[-1].n)
            if events[0].n > start:
                oldest = events[0].n  # what stood before it has gone since we looked
        return LogRange(events, gap=foreign or 0 < after < oldest - 1, oldest=oldest, newest=newest)

    def subscribe(self, channel: str, listener: EventListener) -> Callable[[], None]:
        return self._subscriptions.add(channel, listener)

    def _on_change(self, change: Mapping[str, Any]) -> None:
        document = change["fullDocument"]
        if document["_id"]["c"] in self._subscriptions:
            self._subscriptions.notify(_event(document))

    @undisturbed
    async def _append(self, channel: str, entries: Sequence[Entry]) -> list[int]:
        numbers: list[int] = []
        with bounded():
            for attempt in range(ATTEMPTS):
                last, now = await self._place(channel)
                rest = entries[len(numbers) :]
                taken = await self._insert(channel, last, now, rest)
                numbers.extend(range(last + 1, last + 1 + taken))
                if taken and (last + taken) // self._slack > last // self._slack:
                    # Not the beginning: who found the channel empty a moment ago is about to read it.
                    await self._events.delete_many({"_id": _numbers(channel, BEGINNING + 1, last + taken - self._size)})
                if len(numbers) == len(entries):
                    return numbers
                if not taken:  # who lost steps back a random while: of many that are in step one might never win
                    await asyncio.sleep(random.uniform(0, min(LONGEST_STEP_BACK, 0.0005 * 2 ** min(attempt, 10))))  # noqa: S311
        raise StoreUnavailableError(reason=f"too many processes publish to one channel: {ATTEMPTS} attempts failed")

    @property
    def _slack(self) -> int:
        """How many events too many there may be: each delete takes about that many."""
        return max(1, self._size // 10)

    async def _insert(self, channel: str, last: int, now: datetime, entries: Sequence[Entry]) -> int:
        """Append as many entries as find their number free, in order; returns how many."""
        documents = [
            {
                "_id": {"c": channel, "n": Int64(last + position)},
                "event": entry.event,
                "data": entry.data,
                "ends_at": now + self._age,
            }
            for position, entry in enumerate(entries, 1)
        ]
        try:
            await self._events.insert_many(documents)
        except BulkWriteError as error:
            details: Document = dict(error.details or {})
            if details.get("writeConcernErrors") or any(
                refused.get("code") != DUPLICATE_KEY for refused in details.get("writeErrors", ())
            ):
                raise StoreUnavailableError(reason="events were not written to a majority") from error
            return int(details["nInserted"])
        return len(documents)

    async def _place(self, channel: str) -> tuple[int, datetime]:
        """The last number that was given out in the channel, and the server's time."""
        pipeline = [
            {"$match": {"_id": _numbers(channel, BEGINNING + 1, LAST)}},
            {"$sort": {"_id": -1}},
            {"$limit": 1},
            {"$project": {"now": "$$NOW"}},
        ]
        found = await (await settled(self._events.aggregate(pipeline))).to_list(None)
        if found:
            return found[0]["_id"]["n"], found[0]["now"]
        # Two processes that both find an empty channel must begin at one number, so one of them writes it down.
        first = {"$ifNull": ["$first", MICROSECONDS]}
        ends_at = {"$ifNull": ["$ends_at", {"$add": ["$$NOW", int(self._age.total_seconds() * 1000)]}]}
        query = {"_id": {"c": channel, "n": Int64(BEGINNING)}}
        change = [{"$set": {"first": first, "ends_at": ends_at, "now": "$$NOW"}}]
        try:
            row = await self._events.find_one_and_update(
                query, change, upsert=True, return_document=ReturnDocument.AFTER
            )
        except DuplicateKeyError:
            row = await self._events.find_one_and_update(query, change, return_document=ReturnDocument.AFTER)
        return row["first"] - 1, row["now"]

    async def _look(self, channel: str, after: int, limit: int) -> tuple[int, int, tuple[LogEvent, ...]]:
        """The numbers of the first and the last event, 0 where there is none, and events from `after` on: together,
        since each call of the driver costs more than what it asks."""
        pipeline = [
            *_end(channel, -1),
            {"$unionWith": {"coll": self._events.name, "pipeline": _end(channel, 1)}},
            {
                "$unionWith": {
                    "coll": self._events.name,
                    "pipeline": _range(channel, min(max(BEGINNING, after) + 1, LAST), limit),
                }
            },
        ]
        rows = await self._rows(pipeline)
        # In which order the server hands them over is its own affair.
        ends = [int(row["_id"]["n"]) for row in rows if "data" not in row]
        events = sorted((_event(row) for row in rows if "data" in row), key=lambda event: event.n)
        return (min(ends), max(ends), tuple(events)) if ends else (0, 0, ())

    async def _newest(self, channel: str) -> int:
        """The number of the last event, as a majority has it now; 0: there is none."""
        query = {"_id": _numbers(channel, BEGINNING + 1, LAST)}
        row = await self._confirmed.find_one(query, projection=["_id"], sort=[("_id", -1)])
        return 0 if row is None else int(row["_id"]["n"])

    async def _rows(self, pipeline: Sequence[Document]) -> list[Document]:
        found = await settled(self._durable.aggregate(pipeline))
        rows: list[Document] = await found.to_list(None)
        return rows


def _numbers(channel: str, first: int, last: int) -> Document:
    """A range of `_id`: embedded documents compare field by field."""
    return {"$gte": {"c": channel, "n": Int64(first)}, "$lte": {"c": channel, "n": Int64(last)}}


def _end(channel: str, direction: int) -> list[Document]:
    """The first event, or the last, without what it says."""
    every = {"_id": _numbers(channel, BEGINNING + 1, LAST)}
    return [{"$match": every}, {"$sort": {"_id": direction}}, {"$limit": 1}, {"$project": {"_id": 1}}]


def _range(channel: str, first: int, limit: int) -> list[Document]:
    """At most `limit` events from `first` on, without those before which there are `RANGE_BYTES` already."""
    before = {"$sum": {"$strLenBytes": "$data"}, "window": {"documents": ["unbounded", -1]}}
    return [
        {"$match": {"_id": _numbers(channel, first, LAST)}},
        {"$sort": {"_id": 1}},
        {"$limit": limit},
        {"$setWindowFields": {"sortBy": {"_id": 1}, "output": {"before": before}}},
        {"$match": {"before": {"$not": {"$gte": RANGE_BYTES}}}},
    ]


def _event(document: Mapping[str, Any]) -> LogEvent:
    key = document["_id"]
    return LogEvent(str(key["c"]), int(key["n"]), str(document["event"]), str(document["data"]))
