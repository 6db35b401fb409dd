"""REL-23: more connections than file descriptors, which come back when they are turned away: what does that cost, and
how soon is it over?"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import time

import httpx

from tests.benchmarks.rows import Row
from tests.parts.limited_server import DESCRIPTORS, limited_server, seconds_used
from tests.parts.process import ServerProcess

CONNECTIONS = 2 * DESCRIPTORS
SECONDS = 20.0
PATIENCE = 30.0


def descriptors() -> list[Row]:
    """One sample server, and a crowd that is twice as large as it can hold."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4 * CONNECTIONS)), hard))
    with limited_server() as (url, bearer, server):
        return asyncio.run(_crowd(url, bearer, server))


async def _crowd(url: str, bearer: str, server: ServerProcess) -> list[Row]:
    port = int(url.rpartition(":")[2])
    turned_away = 0

    async def come_again() -> None:
        nonlocal turned_away
        while True:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                with contextlib.suppress(ConnectionError):
                    await reader.read()
                turned_away += 1
            finally:
                writer.transport.abort()
            await asyncio.sleep(1.0)

    crowd = [asyncio.create_task(come_again()) for _ in range(CONNECTIONS)]
    before, lines = seconds_used(server), server.output.count("\n")
    await asyncio.sleep(SECONDS)
    cpu, lines = seconds_used(server) - before, server.output.count("\n") - lines
    for one in crowd:
        one.cancel()
    await asyncio.gather(*crowd, return_exceptions=True)
    left = time.monotonic()
    name = f"REL-23, {CONNECTIONS} connections on {DESCRIPTORS} descriptors"
    return [
        Row(
            name=f"{name}: processor of the server",
            unit="%",
            value=100 * cpu / SECONDS,
            reach=10,
            detail=f"{turned_away / SECONDS:.0f} turned away a second",
        ),
        Row(name=f"{name}: lines in the log", unit="/s", value=lines / SECONDS, reach=0.25),
        Row(name=f"{name}: until a newcomer is served", unit="s", value=await _served(url, bearer) - left, reach=2),
    ]


async def _served(url: str, bearer: str) -> float:
    """When somebody on a new connection is."""
    async with asyncio.timeout(PATIENCE):
        while True:
            async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
                with contextlib.suppress(httpx.TransportError):
                    answer = await client.get("/me", headers={"Authorization": f"Bearer {bearer}"})
                    if answer.status_code == 200:
                        return time.monotonic()
