"""A storm of probes while MongoDB is frozen: are all answered in time, and does anybody else notice?"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

from tests.benchmarks.load import Server, running
from tests.benchmarks.rows import Row, percentile
from tests.parts import mongod

RATE = 1000
SECONDS = 20.0
STEP = 0.01
WARM_UP = 5.0
CONNECTIONS = 1800  # more than can be waiting within the bound of an answer
EACH = 0.05


@dataclass
class Storm:
    """What came back. Seconds; `late` probes found no connection that was free."""

    probes: list[float] = field(default_factory=list)
    requests: list[float] = field(default_factory=list)
    statuses: set[bytes] = field(default_factory=set)
    late: int = 0


def probes() -> list[Row]:
    """A thousand `/health` a second for twenty seconds; beside them one user whose session is in the cache."""
    with (
        mongod.replica_set(1) as servers,
        running("cached_pymongo", mongo=servers.uri, database="benchmark_probes") as server,
    ):
        server.ask("GET", "/")  # the session is in the cache from now on
        with servers.members[0].stopped():
            storm, before, after = asyncio.run(_storm(server))
    answered = len(storm.probes)
    return [
        Row(
            name=f"slowest of {answered:,} probes of /health at {RATE:,} a second, MongoDB frozen",
            unit="ms",
            value=max(storm.probes) * 1000,
            reach=1500,
            detail=f"median {percentile(storm.probes, 50) * 1000:.3g} ms, {storm.late} not sent in time, "
            f"answers {b', '.join(sorted(storm.statuses)).decode()}",
        ),
        Row(
            name="an authenticated GET meanwhile, 95th percentile",
            unit="ms",
            value=percentile(storm.requests, 95) * 1000,
            reach=50,
            detail=f"{len(storm.requests)} measured, session in the cache",
        ),
        Row(name="memory that the storm leaves behind", unit="MiB", value=(after - before) / 2**20, reach=5),
    ]


async def _storm(server: Server) -> tuple[Storm, int, int]:
    free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
    for _ in range(CONNECTIONS):
        free.append(await asyncio.open_connection("127.0.0.1", server.port))
    await _probing(server, free, Storm(), WARM_UP)  # buffers and caches are made once
    before = (await asyncio.to_thread(server.usage)).memory
    storm = Storm()
    requests = asyncio.create_task(_requests(server, storm))
    await _probing(server, free, storm, SECONDS)
    if requests.done():
        requests.result()  # which raises what ended it
    requests.cancel()
    after = (await asyncio.to_thread(server.usage)).memory
    for _, writer in free:
        writer.close()
    return storm, before, after


async def _probing(
    server: Server, free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]], storm: Storm, seconds: float
) -> None:
    request = f"GET /health HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n\r\n".encode()
    begun, sent = time.monotonic(), 0
    asking: set[asyncio.Task[bytes]] = set()
    while (passed := time.monotonic() - begun) < seconds:
        while sent < passed * RATE:
            sent += 1
            if not free:
                storm.late += 1
                continue
            connection = free.pop()
            task = asyncio.create_task(_ask(connection, request, storm.probes, storm.statuses))
            asking.add(task)
            task.add_done_callback(asking.discard)
            task.add_done_callback(lambda _, back=connection: free.append(back))
        await asyncio.sleep(STEP)
    await asyncio.gather(*asking)


async def _requests(server: Server, storm: Storm) -> None:
    connection = await asyncio.open_connection("127.0.0.1", server.port)
    request = f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nCookie: {server.cookies[0]}\r\n\r\n".encode()
    while True:
        statuses: set[bytes] = set()
        body = await _ask(connection, request, storm.requests, statuses)
        if statuses != {b"200"}:
            raise RuntimeError(f"the request was answered {statuses}: {body!r}")
        await asyncio.sleep(EACH)


async def _ask(
    connection: tuple[asyncio.StreamReader, asyncio.StreamWriter], request: bytes, took: list[float], seen: set[bytes]
) -> bytes:
    reader, writer = connection
    begun = time.monotonic()
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
    body = await reader.readexactly(length)
    took.append(time.monotonic() - begun)
    seen.add(head.split(b" ", 2)[1])
    return body
