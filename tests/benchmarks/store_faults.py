"""REL-06, REL-08: MongoDB frozen, and change streams killed: how soon is who told?"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import httpx
from pymongo import AsyncMongoClient

from tests.benchmarks.load import Server, running
from tests.benchmarks.progress import progress
from tests.benchmarks.revocation import sign_out_elsewhere
from tests.benchmarks.rows import Row, percentile
from tests.parts import mongod, provider
from tests.parts.sample_server import sample_servers

STREAMS = 100
FROZEN = 15.0  # seconds
AT_A_TIME = 20
DATABASE = "benchmark_store_faults"
PATIENCE = 30.0
KILLS = 20


def store_faults() -> list[Row]:
    """Sessions that no cache has, over a frozen database; then sign-outs whose change streams were just killed."""
    with mongod.replica_set(1) as servers:
        with (
            running("uncached_pymongo", mongo=servers.uri, database=DATABASE, sessions=STREAMS) as server,
            server.streams() as streams,
        ):
            with servers.members[0].stopped():
                refusals = asyncio.run(_refusals(server))
            thawed = time.monotonic()
            back = asyncio.run(_served(server)) - thawed
            server.ask("POST", "/-/publish")
            streams.expect(b"fan-out")  # each of them, or it raises
        with provider.running() as issuer:
            delays, opened = asyncio.run(_without_change_stream(issuer, servers.uri))
    return [
        Row(
            name=f"REL-06, MongoDB frozen for {FROZEN:.0f} s: a request that needs it, until its 503, p99",
            unit="s",
            value=percentile(refusals, 99),
            reach=1.0,
            detail=f"{len(refusals)} requests, {AT_A_TIME} at a time; worst {max(refusals):.2g} s; "
            f"{STREAMS} of {STREAMS} streams kept",
        ),
        Row(name="REL-06, until such a request is served again", unit="s", value=back, reach=10),
        Row(
            name="REL-08, change streams killed: from a sign-out to the stream's end elsewhere, worst",
            unit="s",
            value=max(delays),
            reach=5,
            detail=f"median of {KILLS} {percentile(delays, 50):.2g} s",
        ),
        Row(
            name="REL-08, change streams opened for each that was killed: to find the place, and to follow it",
            unit="",
            value=opened,
            reach=2,
        ),
    ]


async def _refusals(server: Server) -> list[float]:
    """Seconds of each request while the database is frozen."""
    seconds: list[float] = []
    until = time.monotonic() + FROZEN

    async def ask(client: httpx.AsyncClient, cookie: str) -> None:
        while (begun := time.monotonic()) < until:
            progress(f"{until - begun:.0f} s frozen, {len(seconds)} requests refused")
            answer = await client.get("/", headers={"Cookie": cookie})
            if answer.status_code != 503 or answer.json()["error"] != "store_unavailable":
                raise RuntimeError(f"{answer.status_code} {answer.text}")
            seconds.append(time.monotonic() - begun)

    async with httpx.AsyncClient(base_url=server.url, trust_env=False, timeout=PATIENCE) as client:
        await asyncio.gather(*(ask(client, cookie) for cookie in server.cookies[:AT_A_TIME]))
    return seconds


async def _served(server: Server) -> float:
    """When a request that asks the store is answered."""
    async with httpx.AsyncClient(base_url=server.url, trust_env=False, timeout=PATIENCE) as client:
        while (await client.get("/", headers={"Cookie": server.cookies[0]})).status_code != 200:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    return time.monotonic()


async def _without_change_stream(issuer: provider.Provider, uri: str) -> tuple[list[float], float]:
    """Seconds from sign-outs to the ends of streams, and change streams that were opened for each that was killed."""
    killed = 0
    async with (
        AsyncMongoClient[dict[str, Any]](uri) as client,
        sample_servers(issuer, [uri] * 2, DATABASE) as pair,
    ):

        async def opened() -> int:
            status = await client.admin.command("serverStatus")
            return int(status["metrics"]["aggStageCounters"]["$changeStream"])

        async def kill() -> None:
            nonlocal killed
            operations = await client.admin.aggregate([{"$currentOp": {"allUsers": True, "idleCursors": True}}])
            cursors = [
                operation["cursor"]["cursorId"]
                async for operation in operations
                if operation["ns"] == f"{DATABASE}.sessions" and "$changeStream" in str(operation.get("cursor"))
            ]
            await client[DATABASE].command({"killCursors": "sessions", "cursors": cursors})
            killed += len(cursors)

        before, delays = await opened(), []
        for number in range(KILLS):
            progress(f"{number} of {KILLS} sign-outs without a change stream")
            at, other = pair[number % 2], pair[1 - number % 2]
            delays.append(await sign_out_elsewhere(at, other, f"user{number}", kill))
        return delays, (await opened() - before) / killed
