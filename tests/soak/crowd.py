"""Clients that read slowly or not at all, and then a crowd that comes back at once (REL-18, REL-20): what do others
notice?

One sample server on a real MongoDB. A process of its own asks for `/me` all the time, in the name of twenty people,
another does on a new connection each time, and a third in the name of three hundred who each come when the cache has
forgotten them; the server writes down how long each validation took. A third of the time nobody else is there, a third
those who do not read, a third the crowd as well, again and again. What counts of it is the time from its return until
the last of its streams knows what it has missed, and everybody else's validations in it; the crowd's own, and how its
leaving is felt, all in one moment, are told besides. Those who do not read come back as soon as they are closed, with a
`Last-Event-ID` that is long gone: they stay until the end, each with a replay that waits for it.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.benchmarks.rows import percentile
from tests.parts.process import ServerProcess
from tests.soak.crowded import Crowded, child, crowded_server
from tests.soak.findings import Findings
from tests.soak.soak import Soak

CROWD = 2000
SESSIONS = 200  # of the crowd
WAVE = 8.0  # seconds from one return of the crowd to the next
OTHERS = 20
SELDOM = 300  # others, each of whom comes after the cache has forgotten who it was
READERS = 20
SLOW = DEAD = 20
EVENT = 32_768  # bytes, to each of those and to the readers
PUBLISH_EVERY = 0.125
WARM_UP = 3.0  # seconds that count for nothing
NAME_OF_CROWD = "crowd|"  # begins those of its users
NAME_OF_SELDOM = "seldom|"
USERS = [
    *(f"soak|{number}" for number in range(OTHERS + 1)),
    *(f"{NAME_OF_SELDOM}{number}" for number in range(SELDOM)),
    *(f"{NAME_OF_CROWD}{number}" for number in range(SESSIONS)),
]
PAUSE = 0.005  # seconds between two requests on one connection
PAUSE_ANEW = 0.2  # on a new connection each
PAUSE_SELDOM = 6.0 / SELDOM

PROBE = """
import http.client, itertools, json, sys, time
orders = json.load(sys.stdin)
host = f"127.0.0.1:{orders['port']}"
connection = http.client.HTTPConnection(host, timeout=60)
for bearer in itertools.cycle(orders["bearers"]):
    if time.time() > orders["until"]:
        break
    begun = time.time()
    connection.request("GET", "/me", headers={"Authorization": "Bearer " + bearer})
    answer = connection.getresponse()
    answer.read()
    print(json.dumps([begun, (time.time() - begun) * 1000, answer.status]))
    if orders["anew"]:
        connection.close()
    time.sleep(orders["pause"])
"""


async def run(soak: Soak) -> Findings:
    """The three parts, one after the other."""
    findings = Findings(scenario=soak.scenario)
    soak.tell("starting MongoDB and the server")
    async with crowded_server(USERS) as parts:
        await _measure(soak, findings, parts)
        findings.must("Traceback" not in parts.server.output, "the server wrote a traceback")
    return findings


async def _measure(soak: Soak, findings: Findings, parts: Crowded) -> None:
    port, bearers = parts.port, parts.bearers
    others, reader = bearers[:OTHERS], bearers[OTHERS]
    seldom, crowd = bearers[OTHERS + 1 : OTHERS + 1 + SELDOM], bearers[OTHERS + 1 + SELDOM :]
    soak.begin()
    third = soak.seconds / 3
    begin = time.time() + WARM_UP
    turns = [begin + third * number for number in range(4)]
    told = {"port": port, "until": turns[3]}
    async with AsyncExitStack() as stack:
        fan_out = await stack.enter_async_context(_fan_out(port, reader))

        def ask(bearers: Sequence[str], pause: float, *, anew: bool = False) -> asyncio.Task[list[Any]]:
            orders = {**told, "bearers": bearers, "pause": pause, "anew": anew}
            return asyncio.create_task(child("-c", PROBE, orders=orders))

        asked, asked_anew, asked_seldom = (
            ask(others, PAUSE),
            ask(others, PAUSE_ANEW, anew=True),
            ask(seldom, PAUSE_SELDOM),
        )
        stalled = asyncio.create_task(
            child(
                "-m",
                "tests.soak.reconnecting",
                orders={**told, "begin": turns[1], "bearers": [reader], "slow": SLOW, "dead": DEAD},
            )
        )
        waves = asyncio.create_task(
            child(
                "-m",
                "tests.soak.reconnecting",
                orders={**told, "begin": turns[2], "bearers": list(crowd), "wave": WAVE, "streams": CROWD},
            )
        )
        await asyncio.sleep(WARM_UP)
        memory = []
        for part, turn in zip(("nobody else", "those who do not read", "the crowd"), turns[1:], strict=True):
            soak.tell(part)
            await asyncio.sleep(turn - time.time())
            memory.append(_memory(parts.server))
        answers, newcomers, rare = await asked, await asked_anew, await asked_seldom
        [closed], returns = await stalled, await waves
        delays = fan_out.delays
    validated = list(parts.validations)
    others_validated = [one for one in validated if not one[2].startswith(NAME_OF_CROWD)]
    looked_up = [one for one in others_validated if one[2].startswith(NAME_OF_SELDOM)]
    often = [one for one in others_validated if not one[2].startswith(NAME_OF_SELDOM)]
    storms = [(wave["begun"], wave["told"] or wave["begun"] + WAVE) for wave in returns]
    leavings = [(wave["left"], wave["begun"]) for wave in returns[1:]]
    windows = [[(turns[0], turns[1])], [(turns[1], turns[2])], storms, leavings]
    names = ["alone", "stalled readers", "the crowd returns", "it leaves"]

    def within(values: Iterable[Sequence[Any]], part: int) -> list[float]:
        return [value for at, value, *_ in values if any(a <= at < b for a, b in windows[part])]

    findings.must(
        all(status == 200 for *_, status in answers + newcomers + rare), "somebody who was signed in was refused"
    )
    rows = {
        "validations of everybody else, p99": [_p(99, within(others_validated, part)) for part in range(4)],
        "of those who come all the time, p99": [_p(99, within(often, part)) for part in range(4)],
        "of those who come seldom and ask the store, p50": [_p(50, within(looked_up, part)) for part in range(4)],
        "of those who come seldom and ask the store, p99": [_p(99, within(looked_up, part)) for part in range(4)],
        "validations, the crowd's own with them, p99": [_p(99, within(validated, part)) for part in range(4)],
        "whole requests, p50": [_p(50, within(answers, part)) for part in range(4)],
        "whole requests, p99": [_p(99, within(answers, part)) for part in range(4)],
        "on a new connection, p50": [_p(50, within(newcomers, part)) for part in range(4)],
        f"an event of 32 KiB to {READERS} readers, p99": [_p(99, within(delays, part)) for part in range(4)],
    }
    findings.notes += [
        f"{name}: {', '.join(f'{value:.2f} ms {part}' for value, part in zip(values, names, strict=False))}"
        for name, values in rows.items()
    ]
    outcomes: Counter[str] = Counter()
    for wave in returns:
        outcomes.update(wave["answers"])
    took = [(wave["complete"] or math.inf) - wave["begun"] for wave in returns]
    told = [(wave["told"] or math.inf) - wave["begun"] for wave in returns]
    findings.notes.append(
        f"{len(returns)} returns of {CROWD} streams of {SESSIONS} sessions, all open after "
        f"{min(took):.1f} to {max(took):.1f} s, and told what they missed after {min(told):.1f} to {max(told):.1f} s; "
        f"answers: {dict(outcomes)}"
    )
    slow = sum(sample.value for sample in parts.statsd.samples("tornado_sse_auth.stream.closed.slow_consumer"))
    findings.notes.append(
        f"{SLOW} slow and {DEAD} dead readers: {slow:.0f} closed as slow_consumer, seen by them {closed}; "
        f"memory {memory[0]} MiB alone, {memory[1]} MiB with them, {memory[2]} MiB with the crowd"
    )
    findings.must(fan_out.refused == 0, f"{fan_out.refused} events were refused")
    findings.must(slow > 0, "nobody was closed as slow_consumer")
    findings.must(all(wave["opened"] == CROWD for wave in returns), "not everybody got a stream")
    findings.must(all(wave["told"] for wave in returns), "not everybody was told of what it missed")
    name = "validations of everybody else, p99"
    for part in (1, 2):
        alone, crowded = rows[name][0], rows[name][part]
        findings.promise(
            crowded <= 2 * alone, f"{name}: {crowded:.2f} ms, {names[part]}, {alone:.2f} ms alone (at most twice)"
        )


@dataclass
class _FanOut:
    """What is published to the readers, and how long (ms) it took each of them to have it; by time of publication."""

    delays: list[tuple[float, float]]
    port: int
    bearer: str
    refused: int = 0

    async def __aenter__(self) -> _FanOut:
        self._tasks = [asyncio.create_task(self._read()) for _ in range(READERS)]
        self._tasks.append(asyncio.create_task(self._publish()))
        return self

    async def __aexit__(self, *error: object) -> None:
        for task in self._tasks:
            task.cancel()
        for outcome in await asyncio.gather(*self._tasks, return_exceptions=True):
            if isinstance(outcome, Exception):
                raise outcome

    async def _publish(self) -> None:
        headers = {"Authorization": f"Bearer {self.bearer}", "Content-Type": "application/json"}
        url = f"http://127.0.0.1:{self.port}/publish"
        filling = "x" * EVENT
        async with httpx.AsyncClient(trust_env=False, timeout=60, headers=headers) as client:
            while True:
                answer = await client.post(url, content=json.dumps([time.time(), filling]))
                self.refused += answer.status_code != 202
                await asyncio.sleep(PUBLISH_EVERY)

    async def _read(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=2**20)
        try:
            head = f"GET /events HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\nAuthorization: Bearer {self.bearer}\r\n\r\n"
            writer.write(head.encode())
            while line := await reader.readline():
                if line.startswith(b"data: ["):
                    sent = float(line[7 : line.index(b",")])
                    self.delays.append((sent, (time.time() - sent) * 1000))
        finally:
            writer.close()


def _fan_out(port: int, bearer: str) -> _FanOut:
    return _FanOut([], port, bearer)


def _p(rank: int, values: Sequence[float]) -> float:
    """A percentile; not a number where there are too few, which is below no bound."""
    return percentile(values, rank) if len(values) > 1 else math.nan


def _memory(server: ServerProcess) -> int:
    pages = int(Path(f"/proc/{server.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // 2**20
