"""Streams come and go, and leave nothing behind."""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import socket
import struct
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.parts.scripted_provider import ScriptedProvider
from tests.scenarios.server import Running, serve
from tests.streams.serving import until
from tornado_sse_auth import MemorySessionStore, OAuthProvider, Secret, TokenSet
from tornado_sse_auth.testing import ManualClock

STREAMS = 2000
SESSIONS = 200
ROUNDS = 5
AT_A_TIME = 100  # of connections that are made at the same moment
MIB = 2**20
RESET = struct.pack("ii", 1, 0)


class Holding(NamedTuple):
    """What a process holds."""

    streams: int
    sessions: int
    ending: int
    scheduled: int
    channels: int
    cached: int
    descriptors: int


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    """Both ends of all the streams are in this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 3 * STREAMS
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.fail(f"the test needs {wanted} descriptors; the hard limit is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def holding(app: Running) -> Holding:
    auth = app.auth
    return Holding(
        len(auth.registry),
        auth.registry.active_sessions,
        auth.registry.leaving,
        auth.refresh_manager.scheduled,
        len(auth.hub),
        len(auth.sessions._cache),
        len(os.listdir("/proc/self/fd")),
    )


def memory() -> int:
    """Resident, in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


async def opened(app: Running, cookie: str) -> asyncio.StreamWriter:
    """A stream whose first event has arrived."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(app.url.rpartition(":")[2]))
    writer.write(f"GET /prices HTTP/1.1\r\nHost: {app.url[7:]}\r\nCookie: {cookie}\r\n\r\n".encode())
    await reader.readuntil(b"event: open\n")
    return writer


async def all_opened(app: Running, cookies: list[str]) -> list[asyncio.StreamWriter]:
    found: list[asyncio.StreamWriter] = []
    turns = cycle(cookies)
    while len(found) < STREAMS:
        found += await asyncio.gather(*(opened(app, next(turns)) for _ in range(AT_A_TIME)))
    return found


async def all_gone(app: Running, streams: list[asyncio.StreamWriter]) -> None:
    """Every second client goes without a word."""
    for number, stream in enumerate(streams):
        if number % 2:
            stream.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        stream.close()
    await asyncio.gather(*(stream.wait_closed() for stream in streams), return_exceptions=True)
    await until(lambda: not len(app.auth.registry) and not app.auth.registry.leaving)


async def test_everything_is_as_before(many_descriptors: None, scripted: ScriptedProvider) -> None:
    """REL-28: 2 000 streams of 200 sessions, five times: registry, schedule, caches, descriptors and memory."""
    clock = ManualClock()
    provider = OAuthProvider(
        issuer=scripted.issuer, client_id=scripted.client_id, client_secret=scripted.client_secret, scopes="openid"
    )
    options = {"clock": clock, "max_streams": 2 * STREAMS}
    async with serve(MemorySessionStore(clock=clock), provider, **options) as app:
        cookies = []
        for number in range(SESSIONS):
            tokens = TokenSet(
                access_token=Secret.random(),
                refresh_token=Secret.random(),
                issued_at=clock.time(),
                expires_at=clock.time() + 86_400,
                scopes=frozenset(),
            )
            _, credential = await app.auth.sessions.create(
                user_id=f"u{number}", scopes={"prices:read"}, token_set=tokens
            )
            cookies.append(f"{app.cookie}={credential.reveal()}")
        before = holding(app)
        objects, resident = [], []
        for _ in range(ROUNDS):
            streams = await all_opened(app, cookies)
            held = holding(app)
            assert held[:6] == (STREAMS, SESSIONS, 0, SESSIONS, 1, SESSIONS)
            await all_gone(app, streams)
            del streams
            clock.advance(app.auth.options.session_cache_ttl + 1)
            app.metrics.timings.clear()
            now = holding(app)
            assert now[:6] == before[:6]
            assert now.descriptors <= before.descriptors  # what the tests before left open may close meanwhile
            gc.collect()
            objects.append(len(gc.get_objects()))
            resident.append(memory())
        # The first round makes what is made once; a leak of one object a stream would be 6 000.
        assert abs(objects[-1] - objects[1]) < STREAMS / 10, objects
        assert resident[-1] - resident[1] < 8 * MIB, resident
