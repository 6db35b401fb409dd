"""Fixtures: a server in memory whose time the test moves, and processes that share a store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from tests.authorization_server.kit import World, world
from tests.parts.process import free_port
from tests.stores.backends import MOTOR, Backend, MemoryBackend, MongoBackend, now_clock
from tornado_sse_auth import MemorySessionStore
from tornado_sse_auth.testing import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def here(clock: ManualClock) -> AsyncIterator[World]:
    async with world(MemorySessionStore(clock=clock), clock=clock) as running:
        yield running


@pytest.fixture(params=["memory", pytest.param(MOTOR, marks=pytest.mark.real("mongod"))])
async def processes(request: pytest.FixtureRequest) -> AsyncIterator[tuple[World, World]]:
    """Two processes on one store, with one public URL and one clock; each has caches and a feed of its own."""
    if request.param != "memory":
        # Asked for first, so that the database goes after the clients.
        uri, name = request.getfixturevalue("mongod").uri, request.getfixturevalue("database_name")
    async with AsyncExitStack() as stack:
        backend: Backend = MemoryBackend(clock=now_clock(), stack=stack)
        if request.param != "memory":
            backend = MongoBackend(clock=now_clock(), stack=stack, uri=uri, name=name, driver=request.param)
        ports = free_port(), free_port()
        hosts = [f"127.0.0.1:{port}" for port in ports]
        first, second = [
            await stack.enter_async_context(
                world(
                    await backend.open(),
                    port=port,
                    public_url=f"http://{hosts[0]}",
                    allowed_hosts=hosts,
                    clock=backend.clock,
                )
            )
            for port in ports
        ]
        yield first, second
