"""Whoever waits for MongoDB may go away at any moment; the driver must not notice."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from motor.motor_asyncio import AsyncIOMotorClient
from pymongo import AsyncMongoClient

from tests.parts.mongod import ReplicaSet
from tornado_sse_auth import Keyring, MongoEventLog, MongoSessionStore, StoreUnavailableError
from tornado_sse_auth.clock import SystemClock
from tornado_sse_auth.mongodb import ChangeFeed, bounded, feed, look_ups
from tornado_sse_auth.mongodb.calls import GIVEN_UP_AFTER, undisturbed

CALLERS = 50


@pytest.fixture(params=["motor", "pymongo"])
async def client(own_mongod: ReplicaSet, request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    """Of either driver, with a pool that is soon full; connected under a deadline, as by a store that starts."""
    connect = AsyncIOMotorClient if request.param == "motor" else AsyncMongoClient
    client = connect(own_mongod.uri, maxPoolSize=2)
    with bounded():
        await client.admin.command("ping")
    yield client
    async with asyncio.timeout(20):
        await client.close() if request.param == "pymongo" else client.close()


def under_way() -> int:
    """How many of their calls go on."""
    names = ("MongoSessionStore.find", "MongoEventLog.read")
    return sum(task.get_name() in names for task in asyncio.all_tasks())


async def test_callers_that_go_cancel_no_call_of_the_driver(own_mongod: ReplicaSet, client: Any) -> None:
    """REL-06, REL-26: streams and checks that end while the server is frozen. A call of PyMongo's that is cancelled
    just when its own deadline comes leaves a lock taken, and every later call of the process would hang. So the calls
    go on, end by their deadline, and the store works when the server does."""
    store = MongoSessionStore(client["cancelled"], Keyring.generate())
    events = MongoEventLog(client["cancelled"])
    await store.start()
    with own_mongod.members[0].stopped():
        callers: list[asyncio.Task[object]] = [asyncio.create_task(store.find("nobody")) for _ in range(CALLERS)]
        callers += [asyncio.create_task(events.read("nothing", 0)) for _ in range(CALLERS)]
        await asyncio.sleep(0)  # they begin
        await asyncio.sleep(0)  # and so do their calls
        assert under_way() == 2 * CALLERS
        for caller in callers:
            caller.cancel()
        await asyncio.wait(callers, timeout=10)
        assert all(caller.cancelled() for caller in callers)
        assert under_way() == 2 * CALLERS
        async with asyncio.timeout(20):
            while under_way():  # noqa: ASYNC110 - nobody waits for them any more
                await asyncio.sleep(0.05)
    async with asyncio.timeout(20):
        assert await store.find("nobody") is None
        assert (await events.read("nothing", 0)).events == ()
    await store.close()


async def test_a_driver_that_is_late_holds_up_nobody() -> None:
    """REL-06: it keeps its deadlines to half a second only; whoever waits is told within one, with the time that a
    look-up may wait for its command, and the call goes on."""
    assert GIVEN_UP_AFTER + look_ups.PATIENCE < 1.0
    gate, ended = asyncio.Event(), asyncio.Event()

    @undisturbed
    async def late() -> None:
        await gate.wait()
        ended.set()

    with pytest.raises(StoreUnavailableError, match="deadline"):
        await late()
    gate.set()
    await asyncio.wait_for(ended.wait(), 10)


async def test_while_the_process_stands_still_no_driver_is_late() -> None:
    """REL-25: the answer has come meanwhile, and takes some turns of the loop to be read."""

    @undisturbed
    async def call() -> str:
        await asyncio.sleep(0)
        time.sleep(GIVEN_UP_AFTER + 0.1)  # noqa: ASYNC251 - the loop stands still
        for _ in range(10):
            await asyncio.sleep(0)
        return "the answer"

    assert await call() == "the answer"


async def until(holds: Callable[[], bool]) -> None:
    """Wait for what nobody tells."""
    async with asyncio.timeout(60):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.05)


CLOSED_OVER = {"look up credentials.digest", "MongoEventLog._append", "MongoSealedValues._count", "require_replica_set"}


async def test_who_closes_cancels_no_call_of_the_driver(own_mongod: ReplicaSet, client: Any) -> None:
    """REL-06, REL-26: a process that ends, or gives up to start, while the server is frozen: what waits for a look-up
    or an event is told so, and the calls themselves end by their deadlines, or the client could not be closed."""
    store = MongoSessionStore(client["cancelled"], Keyring.generate())
    events, more = MongoEventLog(client["cancelled"]), MongoEventLog(client["cancelled"])
    calls: set[asyncio.Task[Any]] = set()

    def under_way() -> set[str]:
        calls.update(task for task in asyncio.all_tasks() if task.get_name() in CLOSED_OVER)
        return {task.get_name() for task in calls}

    await store.start()
    await events.start()
    with own_mongod.members[0].stopped():
        asked = asyncio.create_task(store.find_by_credential(b"nobody"))
        published = asyncio.create_task(events.publish("channel", 1))
        going = [asyncio.create_task(store.sealing_keys()), asyncio.create_task(more.start())]
        await until(lambda: under_way() == CLOSED_OVER)
        for task in going:
            task.cancel()
        await store.close()
        await events.close()
        for told in (asked, published):
            with pytest.raises(StoreUnavailableError):
                await told
        assert not any(task.cancelling() for task in calls)
    await asyncio.wait(calls, timeout=60)
    assert not any(task.cancelled() for task in calls)


def readings() -> set[asyncio.Task[Any]]:
    """What reads a change stream of `notes`."""
    return {task for task in asyncio.all_tasks() if task.get_name() == "change stream of notes"}


async def test_a_search_for_a_primary_is_not_cancelled(
    own_mongod: ReplicaSet, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """REL-06, REL-26: while there is no primary the driver looks for one under a lock, which it would keep if it were
    cancelled in the wrong moment. A feed that begins then, is silent then or is closed then leaves the search alone;
    what was closed tells nothing of what the search finds."""
    notes = client["searched"]["notes"]
    told: list[str] = []

    def follow(name: str) -> ChangeFeed:
        return ChangeFeed(
            notes, [], on_change=lambda _: told.append(name), on_loss=lambda: told.append(name), clock=SystemClock()
        )

    going, closed, late = follow("going"), follow("closed"), follow("late")
    await going.start()
    await closed.start()
    await asyncio.to_thread(own_mongod.members[0].kill)
    await until(lambda: not client.topology_description.has_writable_server())
    seen = readings()
    await closed.close()
    monkeypatch.setattr(feed, "START_TIMEOUT", 0.7)
    with pytest.raises(StoreUnavailableError):
        await late.start()
    seen |= readings()
    await until(lambda: not going.alive)
    seen |= readings()
    searching = readings()
    assert searching
    assert not any(task.cancelling() for task in seen)
    await asyncio.to_thread(own_mongod.members[0].start)
    await asyncio.to_thread(own_mongod.primary)
    await until(lambda: going.alive)
    await notes.insert_one({})
    await until(lambda: "going" in told)
    await until(lambda: len(readings()) == 1)
    assert set(told) == {"going"}
    assert not any(task.cancelling() for task in seen)
    await going.close()
