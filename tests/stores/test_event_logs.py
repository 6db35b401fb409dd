"""What every event log promises of numbers, ranges, bounds and followers; then what MongoDB alone can fail at."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pymongo import MongoClient

from tests.parts import mongod as mongo_parts
from tests.stores.backends import MOTOR, PYMONGO, Heard, connect, now_clock
from tests.stores.log_backends import AGE, LogBackend, MemoryLogBackend, MongoLogBackend
from tornado_sse_auth.errors import ConfigurationError, RequestTooLargeError, StoreUnavailableError
from tornado_sse_auth.events import EventLog, LogEvent, LogRange, MemoryEventLog, MongoEventLog
from tornado_sse_auth.events.base import BEYOND, RANGE_BYTES

DRIVERS = (MOTOR, PYMONGO)
ON_MONGOD = [pytest.param(driver, marks=pytest.mark.real("mongod")) for driver in DRIVERS]
# A call ends within a second; a machine at work on other things may need longer to notice.
BOUND = 10.0  # a call takes a second at most; left to the driver it would be 29


@pytest.fixture(params=["memory", *ON_MONGOD])
async def backend(request: pytest.FixtureRequest) -> AsyncIterator[LogBackend]:
    """An event log, empty."""
    if request.param != "memory":
        # Asked for first, so that the database goes after the clients.
        uri, name = request.getfixturevalue("mongod").uri, request.getfixturevalue("database_name")
    async with AsyncExitStack() as stack:
        if request.param == "memory":
            yield MemoryLogBackend(clock=now_clock(), stack=stack)
        else:
            yield MongoLogBackend(clock=now_clock(), stack=stack, uri=uri, name=name, driver=request.param)


@pytest.fixture
async def log(backend: LogBackend) -> EventLog:
    """One process's log."""
    return await backend.open()


@pytest.fixture(params=DRIVERS)
async def mongo(request: pytest.FixtureRequest, mongod: Any, database_name: str) -> AsyncIterator[MongoLogBackend]:
    """The same where only MongoDB is concerned."""
    async with AsyncExitStack() as stack:
        yield MongoLogBackend(clock=now_clock(), stack=stack, uri=mongod.uri, name=database_name, driver=request.param)


@pytest.fixture(params=DRIVERS)
async def frozen_mongo(
    request: pytest.FixtureRequest, own_mongod: mongo_parts.ReplicaSet
) -> AsyncIterator[MongoLogBackend]:
    """The same on a server that the test may freeze."""
    async with AsyncExitStack() as stack:
        yield MongoLogBackend(clock=now_clock(), stack=stack, uri=own_mongod.uri, name="test", driver=request.param)


async def publish(log: EventLog, count: int, channel: str = "c") -> list[int]:
    return [await log.publish(channel, str(number)) for number in range(count)]


def numbers(found: LogRange | Sequence[LogEvent]) -> list[int]:
    return [event.n for event in (found.events if isinstance(found, LogRange) else found)]


# -- numbers and content ---------------------------------------------------------------------------------------------


async def test_numbers_begin_at_the_time_in_microseconds_and_grow_by_one(backend: LogBackend, log: EventLog) -> None:
    given = await publish(log, 5)
    assert abs(given[0] / 1_000_000 - backend.clock.time()) < 60
    assert given == list(range(given[0], given[0] + 5))
    assert numbers(await log.read("c", 0)) == given
    assert numbers(await (await backend.open()).read("c", 0)) == given


async def test_an_event_comes_back_as_it_was_published(log: EventLog) -> None:
    """Text as it is, anything else as JSON that means the same; what looks like an operator is text."""
    contents: list[Any] = ["", "a\r\nb\0c", "$$NOW", "\U0001f600", {"$set": {"a.b": [1, 2.5, None]}}, 2**70, None]
    contents += [["\ud800"], "x" * 1_048_576]
    heard = Heard()
    log.subscribe("$c.d", heard)
    for content in contents:
        await log.publish("$c.d", content, event="$set")
    events = (await log.read("$c.d", 0)).events
    assert {(event.channel, event.event) for event in events} == {("$c.d", "$set")}
    for event, content in zip(events, contents, strict=True):
        assert content == (event.data if isinstance(content, str) else json.loads(event.data))
    assert await heard.until(lambda news: len(news) == len(contents)) == list(events)
    assert (await log.publish("$c.d", "", event="")) == events[-1].n + 1


@pytest.mark.parametrize(
    ("event", "data", "error"),
    [
        ("a\nb", "", ValueError),
        ("a\rb", "", ValueError),
        ("a\0b", "", ValueError),
        ("\ud800", "", ValueError),
        ("e", "\ud800", ValueError),
        ("e", float("nan"), ValueError),
        ("e", {1, 2}, ValueError),
        ("e", {(1, 2): 3}, ValueError),
        ("e", "x" * 1_048_577, RequestTooLargeError),
        ("e", "é" * 524_289, RequestTooLargeError),
        ("e", ["x" * 1_048_573], RequestTooLargeError),
    ],
)
async def test_what_cannot_be_an_event_is_refused(event: str, data: Any, error: type[Exception]) -> None:
    """The check comes before any store: see `test_a_refused_event_leaves_no_trace`."""
    with pytest.raises(error):
        await MemoryEventLog().publish("c", data, event=event)


async def test_a_refused_event_leaves_no_trace(log: EventLog) -> None:
    with pytest.raises(ValueError, match="line break"):
        await log.publish("c", "1", event="a\nb")
    with pytest.raises(RequestTooLargeError):
        await log.publish("c", "x" * 1_048_577)
    assert await log.read("c", 0) == LogRange((), gap=False, oldest=0, newest=0)
    first = await log.publish("c", "1")
    with pytest.raises(ValueError, match="line break"):
        await log.publish("c", "1", event="a\nb")
    assert await log.publish("c", "1") == first + 1


# -- ranges and bounds -----------------------------------------------------------------------------------------------


async def test_a_range_says_whether_something_is_missing(backend: LogBackend) -> None:
    """0 stands for all there is; below the oldest, and above the newest (a number of another log), there is a gap."""
    log = await backend.open(size=5)
    assert await log.read("c", 0) == LogRange((), gap=False, oldest=0, newest=0)
    assert await log.read("c", 7) == LogRange((), gap=True, oldest=0, newest=0)
    given = await publish(log, 8)
    kept, oldest, newest = given[-5:], given[3], given[-1]
    for after, expected, gap in [
        (0, kept, False),
        (-1, kept, False),
        (1, kept, True),
        (oldest - 2, kept, True),
        (oldest - 1, kept, False),
        (oldest, kept[1:], False),
        (newest - 1, [newest], False),
        (newest, [], False),
        (newest + 1, kept, True),
        (2**63 - 1, kept, True),
        (2**70, kept, True),
    ]:
        found = await log.read("c", after)
        assert (numbers(found), found.gap) == (expected, gap), after
        assert (found.oldest, found.newest) == (oldest, newest), after


async def test_a_range_is_read_in_pages(log: EventLog) -> None:
    given = await publish(log, 25)
    found: list[int] = []
    after = 0
    while page := (await log.read("c", after, limit=10)).events:
        assert len(page) == min(10, 25 - len(found))
        found += numbers(page)
        after = found[-1]
    assert found == given
    assert not (await log.read("c", given[4], limit=10)).gap
    foreign = await log.read("c", given[-1] + 1, limit=10)
    assert (numbers(foreign), foreign.gap) == (given[:10], True)


async def test_a_range_of_large_events_is_a_short_one(backend: LogBackend, log: EventLog) -> None:
    """REL-20: whoever waits for a client that does not read holds about 256 KiB of copies, whatever it has missed."""
    given = [await log.publish("c", letter * size) for letter in "xé" for size in (300_000, 100_000, 90_000, 80_000, 9)]
    found: list[LogEvent] = []
    after = 0
    while not (page := await log.read("c", after)).complete:
        found += page.events
        after = found[-1].n
        if isinstance(backend, MongoLogBackend):
            assert sum(len(event.data.encode()) for event in page.events[:-1]) < RANGE_BYTES
    found += page.events
    assert [event.n for event in found] == given
    again = (await log.read("c", given[3])).events
    if isinstance(backend, MongoLogBackend):
        assert [event.n for event in again] == [given[4], given[5]]
    else:
        assert all(one is two for one, two in zip(again, found[4:], strict=True)), "memory holds each event once"


async def test_no_more_than_size_is_visible(backend: LogBackend) -> None:
    """Old events go while new ones come, one by one or many at a time; the follower of an old one is told."""
    log = await backend.open(size=30)
    given = await publish(log, 30)
    for _ in range(6):
        given.append(await log.publish("c", "one more"))
        assert numbers(await log.read("c", 0)) == given[-30:]
    found = await log.read("c", given[0])
    assert (numbers(found), found.gap) == (given[-30:], True)
    given += sorted(await asyncio.gather(*(log.publish("c", "more") for _ in range(50))))
    found = await log.read("c", 0)
    assert (numbers(found), found.gap, found.oldest, found.newest) == (given[-30:], False, given[-30], given[-1])
    if isinstance(backend, MongoLogBackend):
        # A tenth of the size may wait for the next delete.
        assert await backend.raw(lambda events: events.count_documents({"_id.n": {"$gt": 0}})) <= 33


async def test_a_channel_that_grew_too_old_begins_anew(backend: LogBackend, log: EventLog) -> None:
    """The numbers from before are known as such: lower than the new ones, hence a gap."""
    given = await publish(log, 3)
    await backend.outlive()
    assert await log.read("c", 0) == LogRange((), gap=False, oldest=0, newest=0)
    assert await log.read("c", given[-1]) == LogRange((), gap=True, oldest=0, newest=0)
    anew = await log.publish("c", "anew")
    assert anew > given[-1]
    for after in (given[0], given[-1]):
        found = await log.read("c", after)
        assert (numbers(found), found.gap) == ([anew], anew > given[-1] + 1)


# -- several processes -----------------------------------------------------------------------------------------------


async def test_processes_agree_on_one_order(backend: LogBackend) -> None:
    """Three publishers in each of two processes: no hole, no double, each in its own order, each heard once."""
    processes = [await backend.open(), await backend.open()]
    followers = [Heard(), Heard()]
    for process, follower in zip(processes, followers, strict=True):
        process.subscribe("c", follower)

    async def run(process: EventLog, name: str) -> list[tuple[int, str]]:
        return [(await process.publish("c", f"{name}-{count}"), f"{name}-{count}") for count in range(40)]

    told = await asyncio.gather(*(run(process, f"{i}{k}") for i, process in enumerate(processes) for k in "abc"))
    for of_one in told:
        assert of_one == sorted(of_one)
    expected = sorted(pair for of_one in told for pair in of_one)
    assert numbers((await processes[0].read("c", 0)).events) == list(range(expected[0][0], expected[0][0] + 240))
    for process, follower in zip(processes, followers, strict=True):
        events = list((await process.read("c", 0)).events)
        assert [(event.n, event.data) for event in events] == expected
        assert await follower.until(lambda news: len(news) >= 240) == events


async def test_processes_agree_on_the_first_number(backend: LogBackend) -> None:
    """Both find the channel empty at the same moment."""
    processes = [await backend.open(), await backend.open()]
    channels = [f"c{number}" for number in range(10)]
    given = await asyncio.gather(*(process.publish(name, "x") for name in channels for process in processes))
    for name, pair in zip(channels, zip(given[::2], given[1::2], strict=True), strict=True):
        assert max(pair) == min(pair) + 1
        assert numbers(await processes[0].read(name, 0)) == sorted(pair)


# -- followers -------------------------------------------------------------------------------------------------------


async def test_a_listener_that_raises_disturbs_nobody(
    backend: LogBackend, log: EventLog, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(event: LogEvent | None) -> None:
        raise RuntimeError("broken listener")

    first, last = Heard(), Heard()
    for listener in (first, fail, last):
        log.subscribe("c", listener)
    with caplog.at_level(logging.ERROR):
        given = await publish(log, 2)
        for heard in (first, last):
            assert numbers(await heard.until(lambda news: len(news) == 2)) == given
    assert "broken listener" in caplog.text
    assert log.feed_alive


async def test_who_has_unsubscribed_hears_nothing(log: EventLog) -> None:
    """Twice is once, the others stay, and the channel can be followed again."""
    gone, stays = Heard(), Heard()
    stop = log.subscribe("c", gone)
    log.subscribe("c", stays)
    await log.publish("c", "1")
    await gone.until(bool)
    stop()
    stop()
    await log.publish("c", "2")
    await stays.until(lambda news: len(news) == 2)
    again = Heard()
    stop = log.subscribe("other", again)
    stop()
    log.subscribe("other", again)
    n = await log.publish("other", "3")
    assert numbers(await again.until(bool)) == [n]
    assert len(gone.news) == 1


async def test_channels_do_not_mix(log: EventLog) -> None:
    names = ["", "a", "A", "a.b", "$a", "a\0", "\U0001f600"]
    followers = {name: Heard() for name in names}
    for name, follower in followers.items():
        log.subscribe(name, follower)
    for _ in range(3):
        await asyncio.gather(*(log.publish(name, f"in {name}") for name in names))
    for name, follower in followers.items():
        events = list((await log.read(name, 0)).events)
        assert [(event.channel, event.data) for event in events] == [(name, f"in {name}")] * 3
        assert await follower.until(lambda news: len(news) >= 3) == events


async def test_close_twice_is_once(log: EventLog) -> None:
    async with asyncio.timeout(BOUND):
        await log.close()
        await log.close()


# -- memory alone ----------------------------------------------------------------------------------------------------


async def test_memory_forgets_what_is_too_old_or_not_used() -> None:
    clock = now_clock()
    log = MemoryEventLog(age=60, channels=2, clock=clock)
    n = await log.publish("a", "1")
    clock.advance(40)
    await log.publish("a", "2")
    clock.advance(20)
    found = await log.read("a", n - 1)
    assert (numbers(found), found.gap) == ([n + 1], True)
    await log.publish("b", "1")
    await log.read("a", 0)
    await log.publish("c", "1")
    assert [(await log.read(name, 0)).newest > 0 for name in "abc"] == [True, False, True]


async def test_memory_gives_no_number_twice_when_the_clock_goes_back() -> None:
    clock = now_clock()
    log = MemoryEventLog(age=60, clock=clock)
    before = await publish(log, 3)
    clock.advance(60)
    clock.jump(-3600)
    assert await log.publish("c", "anew") == before[-1] + 1


# -- MongoDB alone ---------------------------------------------------------------------------------------------------


async def test_mongo_is_told_when_events_end(mongo: MongoLogBackend) -> None:
    """The server's TTL monitor does the rest, within a minute or two."""
    await publish(await mongo.open(), 2)
    ttl = (await mongo.raw(lambda events: events.index_information()))["ends_at"]
    assert (ttl["key"], ttl["expireAfterSeconds"]) == ([("ends_at", 1)], 0)
    documents = await mongo.raw(lambda events: list(events.find()))
    assert len(documents) == 3, "two events, and where the channel begins"
    for document in documents:
        left = document["ends_at"] - datetime.now(UTC)
        assert timedelta(seconds=AGE - 60) < left < timedelta(seconds=AGE + 60)


async def test_a_frozen_mongod_fails_calls_in_time(
    frozen_mongo: MongoLogBackend, own_mongod: mongo_parts.ReplicaSet
) -> None:
    """REL-06: also when many ask at once. What was acknowledged is there afterwards, and is heard once, in order."""
    log = await frozen_mongo.open()
    heard = Heard()
    log.subscribe("c", heard)
    given = await publish(log, 3)
    await heard.until(lambda news: len(news) == 3)
    with own_mongod.members[0].stopped():
        async with asyncio.timeout(BOUND):
            results = await asyncio.gather(
                *(log.publish("c", "perhaps") for _ in range(20)),
                *(log.publish(f"c{number}", "perhaps") for number in range(20)),
                *(log.read("c", 0) for _ in range(20)),
                return_exceptions=True,
            )
        assert {type(result) for result in results} == {StoreUnavailableError}
        frozen_mongo.clock.advance(5)
        assert not log.feed_alive
    given.append(await until_published(log))
    events = list((await log.read("c", 0)).events)
    assert numbers(events) == list(range(given[0], given[-1] + 1))
    assert set(given) <= set(numbers(events))
    assert await heard.until(lambda news: len(news) >= len(events), 20) == events
    assert log.feed_alive


async def until_published(log: EventLog) -> int:
    """The number of an event that is published as soon as the store answers again."""
    async with asyncio.timeout(20):
        while True:
            try:
                return await log.publish("c", "after")
            except StoreUnavailableError:
                continue


async def test_a_log_closes_while_mongod_is_frozen(
    frozen_mongo: MongoLogBackend, own_mongod: mongo_parts.ReplicaSet
) -> None:
    """Who waits for a number is told that there will be none."""
    log = await frozen_mongo.open()
    await log.publish("c", "1")
    with own_mongod.members[0].stopped():
        waiting = [asyncio.ensure_future(log.publish("c", "2")) for _ in range(3)]
        await asyncio.sleep(0)
        async with asyncio.timeout(2 * BOUND):
            await log.close()
            results = await asyncio.gather(*waiting, return_exceptions=True)
        assert {type(result) for result in results} == {StoreUnavailableError}
        assert not log.feed_alive


async def test_followers_are_told_of_a_feed_that_was_lost(mongo: MongoLogBackend) -> None:
    """REL-08: its resume point is gone with the collection; what comes later is heard again."""
    log = await mongo.open()
    heard, elsewhere = Heard(), Heard()
    log.subscribe("c", heard)
    log.subscribe("d", elsewhere)
    before = await log.publish("c", "1")
    await heard.until(bool)
    await mongo.raw(lambda events: events.drop())
    assert await elsewhere.until(bool) == [None]
    n = await log.publish("c", "2")
    *first, loss, last = await heard.until(lambda news: len(news) == 3)
    assert (numbers(first), loss, numbers([last])) == ([before], None, [n])
    found = await log.read("c", before)
    assert (numbers(found), found.gap) == ([n], True)


async def test_a_standalone_mongod_is_refused(standalone_mongod: mongo_parts.Mongod) -> None:
    """It has no change streams; the error names what to do."""
    async with AsyncExitStack() as stack:
        for driver in DRIVERS:
            log = MongoEventLog(connect(stack, driver, standalone_mongod.uri, "test"))
            with pytest.raises(ConfigurationError, match="--replSet"):
                await log.start()
            await log.close()


async def test_a_crowd_from_another_log_asks_once_what_a_majority_has(own_mongod: mongo_parts.ReplicaSet) -> None:
    """REL-18: who comes back with a number that the log does not reach may know more than a primary that was just
    elected. Asking makes the primary wait and write, so one answer is good for all, until another one is elected or a
    second is over."""
    clock = now_clock()
    async with AsyncExitStack() as stack:
        mongo = MongoLogBackend(clock=clock, stack=stack, uri=own_mongod.uri, name="test", driver=PYMONGO)
        log = await mongo.open()

        def asked() -> int:
            with MongoClient[dict[str, Any]](own_mongod.uri) as client:
                seen = client["test"]["system.profile"].find({"command.readConcern.level": "linearizable"})
                return len(list(seen))

        def profile() -> None:
            with MongoClient[dict[str, Any]](own_mongod.uri) as client:
                client["test"].command("profile", 2)

        await asyncio.to_thread(profile)
        for channel in map(str, range(20)):
            assert (await log.read(channel, 7)).gap
        assert await asyncio.to_thread(asked) == 1
        clock.advance(1.0)
        for channel in map(str, range(20)):
            assert (await log.read(channel, 7)).gap
        assert await asyncio.to_thread(asked) == 2
        member = own_mongod.members[0]
        await asyncio.to_thread(member.run, "replSetStepDown", 1, force=True)
        await asyncio.to_thread(own_mongod.primary)
        async with asyncio.timeout(BOUND):
            while True:
                try:
                    found = await log.read("a", 7)
                    break
                except StoreUnavailableError:
                    await asyncio.sleep(0.05)
        assert found.gap
        before = await asyncio.to_thread(asked)
        assert before > 2  # the driver tries once more what the change broke
        assert (await log.read("a", BEYOND)).gap  # where the log stands is asked of whoever is there
        clock.advance(1.0)
        assert (await log.read("a", BEYOND)).gap
        assert await asyncio.to_thread(asked) == before
