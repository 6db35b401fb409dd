"""REL-24: two thousand begin a request, send one more byte each ten seconds, and come back when they are closed. What
do others notice?

One sample server, which writes down how long each validation took. A third of the time nobody else is there. All the
while one asks for `/me` on a connection that stays open, and another on a new one each time.
"""

from __future__ import annotations

import asyncio
import json
import re
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.benchmarks.rows import percentile
from tests.parts.process import ServerProcess, free_port
from tests.soak.dripping import REQUESTS
from tests.soak.findings import Findings
from tests.soak.soak import Soak
from tornado_sse_auth.options import Options

DEADLINE = Options(public_url="http://127.0.0.1").request_timeout
LATE = 5.0  # seconds after it: the crowd is let in, and closed, over some time, and comes back meanwhile
WARM_UP = 3.0  # seconds that count for nothing
AT_LEAST = 1.0  # milliseconds: below it a ratio of two p99s tells of the machine alone
ROOT = Path(__file__).parents[2]


async def run(soak: Soak) -> Findings:
    """A third of the time alone; the rest, or what two deadlines take, beside the half-open ones."""
    findings = Findings(scenario=soak.scenario)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    port = free_port()
    with tempfile.NamedTemporaryFile("r", prefix="validations-") as validations:
        command = [sys.executable, "-m", "tests.soak.observed_server", validations.name, f"--port={port}"]
        with ServerProcess("server", command, ready=_ready, folder=ROOT) as server:
            bearer = server.wait_for_line(r"Bearer ([\w-]+)").group(1)
            others = _Others(port, bearer)
            soak.begin()
            beside = max(soak.seconds * 2 / 3, 2 * (DEADLINE + LATE))
            alone, crowded, kept = await _measure(soak, others, port, beside)
            findings.must("Traceback" not in server.output, "the server wrote a traceback")
        noted = [(begun, milliseconds) for begun, milliseconds, *_ in map(json.loads, validations)]
    findings.must(len(kept) >= REQUESTS, f"{len(kept)} half-open requests were closed of {REQUESTS} and more")
    findings.promise(
        max(kept, default=0.0) <= DEADLINE + LATE,
        f"half-open requests are closed after {DEADLINE:.0f} s: {len(kept)} were, "
        f"after {min(kept, default=0.0):.1f} to {max(kept, default=0.0):.1f} s",
    )
    served = sum(status == b"200" for *_, status in others.newcomers)
    findings.promise(served == len(others.newcomers), f"{served} of {len(others.newcomers)} newcomers served")
    findings.must(all(status == b"200" for *_, status in others.inside), "who was inside was refused")
    rows: dict[str, Sequence[Sequence[float]]] = {
        "validations": noted,
        "whole requests": [(begun, milliseconds) for begun, milliseconds, _ in others.inside],
        "whole requests on a new connection": [(begun, milliseconds) for begun, milliseconds, _ in others.newcomers],
    }
    for name, values in rows.items():
        before, after = (
            percentile([value for at, value in values if begin <= at < end], 99) for begin, end in (alone, crowded)
        )
        text = f"{name}, p99: {before:.2f} ms alone, {after:.2f} ms beside {REQUESTS} half-open requests"
        if name == "validations":
            findings.promise(after <= 2 * max(before, AT_LEAST), f"{text} (at most twice)")
        else:
            findings.notes.append(text)
    return findings


def _ready(server: ServerProcess) -> None:
    server.wait_for_line("Ctrl-C ends it", 60)


@dataclass
class _Others:
    """Two clients that do what clients do: of each request its beginning, its milliseconds and the status."""

    port: int
    bearer: str
    inside: list[tuple[float, float, bytes]] = field(default_factory=list)
    newcomers: list[tuple[float, float, bytes]] = field(default_factory=list)

    async def stay(self) -> None:
        """Ask again and again on one connection."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            while True:
                self.inside.append(await self._ask(reader, writer, time.time()))
                await asyncio.sleep(0.005)
        finally:
            writer.close()

    async def come_anew(self) -> None:
        """Connect, ask, leave, again and again; what the connection takes counts."""
        while True:
            begun = time.time()
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            try:
                self.newcomers.append(await self._ask(reader, writer, begun))
            finally:
                writer.close()
            await asyncio.sleep(0.05)

    async def _ask(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, begun: float
    ) -> tuple[float, float, bytes]:
        head = f"GET /me HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\nAuthorization: Bearer {self.bearer}\r\n\r\n"
        writer.write(head.encode())
        answer = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: (\d+)", answer)
        assert length is not None, answer
        await reader.readexactly(int(length[1]))
        return begun, (time.time() - begun) * 1000, answer.split(b" ", 2)[1]


async def _measure(
    soak: Soak, others: _Others, port: int, beside: float
) -> tuple[tuple[float, float], tuple[float, float], list[float]]:
    """When nobody else was there, when the half-open ones were, and for how long each of them was kept."""
    async with asyncio.TaskGroup() as group:
        asking = [group.create_task(others.stay()), group.create_task(others.come_anew())]
        await asyncio.sleep(WARM_UP)
        begun = time.time()
        soak.tell("nobody else")
        await asyncio.sleep(soak.seconds / 3)
        came = time.time()
        soak.tell("half-open requests")
        dripping = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.soak.dripping",
            str(port),
            str(beside),
            stdout=asyncio.subprocess.PIPE,
            cwd=ROOT,
        )
        output, _ = await dripping.communicate()
        assert dripping.returncode == 0, f"tests.soak.dripping ended with {dripping.returncode}"
        left = time.time()
        for task in asking:
            task.cancel()
    return (begun, came), (came, left), json.loads(output)
