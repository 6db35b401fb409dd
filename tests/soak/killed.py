"""REL-18: a server with five thousand streams is killed. A new one comes up in its place; when does everybody have a
stream again, how often is the store asked meanwhile, and what do the clients see?

They wait as long as the server has told each of them, and come back with `Last-Event-ID`.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from pymongo import AsyncMongoClient

from tests.soak.crowded import Crowded, child, crowded_server
from tests.soak.findings import Findings
from tests.soak.soak import Soak

STREAMS = 5000
SESSIONS = 500
LOOK_EACH = 0.5  # seconds, at the store's counters


async def run(soak: Soak) -> Findings:
    """Half of the time for them to come, half for them to come back."""
    findings = Findings(scenario=soak.scenario)
    soak.tell("starting MongoDB and the server")
    async with crowded_server([f"crowd|{number}" for number in range(SESSIONS)]) as parts:
        soak.begin()
        until = time.time() + soak.seconds
        orders = {"port": parts.port, "begin": time.time(), "until": until, "bearers": list(parts.bearers)}
        clients = asyncio.create_task(child("-m", "tests.soak.reconnecting", orders={**orders, "streams": STREAMS}))
        soak.tell("they come")
        await asyncio.sleep(soak.seconds / 2)
        soak.tell("the server is killed")
        reads = asyncio.create_task(_reads(parts, until))
        await asyncio.to_thread(parts.server.kill)
        await asyncio.to_thread(parts.server.start)
        [[came, back]] = await clients
        _judge(findings, parts, came, back, await reads)
        findings.must("Traceback" not in parts.server.output, "the server wrote a traceback")
    return findings


async def _reads(parts: Crowded, until: float) -> Sequence[float]:
    """Queries a second of MongoDB, for each look at its counters."""
    rates = []
    async with AsyncMongoClient[dict[str, Any]](parts.mongodb) as client:
        before, at = None, time.monotonic()
        while time.time() < until:
            status = await client.admin.command("serverStatus")
            queries, now = status["opcounters"]["query"], time.monotonic()
            if before is not None:
                rates.append((queries - before) / (now - at))
            before, at = queries, now
            await asyncio.sleep(LOOK_EACH)
    return rates


def _judge(
    findings: Findings, parts: Crowded, came: dict[str, Any], back: dict[str, Any], reads: Sequence[float]
) -> None:
    [(killed, ready)] = parts.server.absences
    answers = Counter(back["answers"])
    errors = {name: count for name, count in answers.items() if name not in ("200", "ConnectionRefusedError")}
    findings.must(came["opened"] == STREAMS, f"{came['opened']} of {STREAMS} streams were open before")
    complete = back["complete"]
    since = "never" if complete is None else f"{complete - ready:.1f} s after a new server was ready"
    findings.promise(
        complete is not None,
        f"{STREAMS} streams of a server that was killed are all back: {since}, which took {ready - killed:.1f} s",
    )
    findings.promise(not errors, f"nobody is refused: {dict(answers)}")
    findings.notes.append(f"the store answered at most {max(reads, default=0.0):.0f} queries a second meanwhile")
