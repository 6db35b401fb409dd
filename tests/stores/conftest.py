"""Fixtures of the suites: each test of `backend` runs on all three."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from tests.stores.backends import MOTOR, PYMONGO, Backend, MemoryBackend, MongoBackend, now_clock
from tornado_sse_auth.stores import SessionStore

ON_MONGOD = [pytest.param(driver, marks=pytest.mark.real("mongod")) for driver in (MOTOR, PYMONGO)]


@pytest.fixture(params=["memory", *ON_MONGOD])
async def backend(request: pytest.FixtureRequest) -> AsyncIterator[Backend]:
    """A session store, empty."""
    if request.param != "memory":
        # Asked for first, so that the database goes after the clients.
        uri, name = request.getfixturevalue("mongod").uri, request.getfixturevalue("database_name")
    async with AsyncExitStack() as stack:
        if request.param == "memory":
            yield MemoryBackend(clock=now_clock(), stack=stack)
        else:
            yield MongoBackend(clock=now_clock(), stack=stack, uri=uri, name=name, driver=request.param)


@pytest.fixture(params=[MOTOR, PYMONGO])
async def mongo(request: pytest.FixtureRequest, mongod: object, database_name: str) -> AsyncIterator[MongoBackend]:
    """The same where only MongoDB is concerned."""
    uri = request.getfixturevalue("mongod").uri
    async with AsyncExitStack() as stack:
        yield MongoBackend(clock=now_clock(), stack=stack, uri=uri, name=database_name, driver=request.param)


@pytest.fixture
async def store(backend: Backend) -> SessionStore:
    """One process's store."""
    return await backend.open()
