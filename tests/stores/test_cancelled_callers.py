"""Whoever waits for MongoDB may go away at any moment; the driver must not notice."""

from __future__ import annotations

import asyncio

import pytest
from motor.motor_asyncio import AsyncIOMotorClient
from pymongo import AsyncMongoClient

from tests.parts.mongod import ReplicaSet
from tornado_sse_auth import Keyring, MongoEventLog, MongoSessionStore

CALLERS = 50


def under_way() -> int:
    """How many of their calls go on."""
    names = ("MongoSessionStore.find", "MongoEventLog.read")
    return sum(task.get_name() in names for task in asyncio.all_tasks())


@pytest.mark.parametrize("driver", ["motor", "pymongo"])
async def test_callers_that_go_cancel_no_call_of_the_driver(own_mongod: ReplicaSet, driver: str) -> None:
    """REL-06, REL-26: streams and checks that end while the server is frozen. A call of PyMongo's that is cancelled
    just when its own deadline comes leaves a lock taken, and every later call of the process would hang. So the calls
    go on, end by their deadline, and the store works when the server does."""
    connect = AsyncIOMotorClient if driver == "motor" else AsyncMongoClient
    client = connect(own_mongod.uri, maxPoolSize=2)
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
    await client.close() if driver == "pymongo" else client.close()
