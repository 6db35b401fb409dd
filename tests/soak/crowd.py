"""A crowd comes back at once, among it clients that read slowly or not at all (REL-18, REL-20): what do others notice?

One sample server with its demo provider on a real MongoDB. A process of its own asks for `/me` all the time; the
server's own timer says how long a validation took. Half of the time nobody else is there, half of it the crowd.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.parts import mongod
from tests.parts.process import ServerProcess, free_port
from tests.parts.statsd import StatsDListener
from tests.soak.findings import Findings
from tests.soak.soak import Soak

CROWD = 2000
SLOW = DEAD = 20
AT_LEAST = 1.0  # milliseconds: below it a ratio of two p99s tells of the machine alone
ROOT = Path(__file__).parents[2]

# Its own process, so that the crowd's work here does not count as the server's.
PROBE = """
import http.client, json, sys, time
host, bearer, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
connection = http.client.HTTPConnection(host, timeout=60)
end = time.time() + seconds
while time.time() < end:
    begun = time.time()
    connection.request("GET", "/me", headers={"Authorization": "Bearer " + bearer})
    answer = connection.getresponse()
    answer.read()
    print(json.dumps([begun, (time.time() - begun) * 1000, answer.status]))
    time.sleep(0.02)
"""


@dataclass
class _Crowd:
    """Streams that are opened, read in one way or another, and opened again."""

    port: int
    bearer: str
    opened: int = 0
    refused: int = 0
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    async def come(self, read: int | None, pause: float, until: float) -> None:
        """One client: `read` bytes a time with a `pause` between (None: never any), away and back each few seconds."""
        while time.monotonic() < until:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=2**12)
            except OSError:
                self.refused += 1
                await asyncio.sleep(0.5)
                continue
            host = f"Host: 127.0.0.1:{self.port}\r\nAuthorization: Bearer {self.bearer}\r\n"
            writer.write(f"GET /events HTTP/1.1\r\n{host}Last-Event-ID: 1\r\n\r\n".encode())
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout_at(asyncio.get_running_loop().time() + max(0.1, until - time.monotonic())):
                    await self._stay(reader, read, pause)
            writer.close()

    async def _stay(self, reader: asyncio.StreamReader, read: int | None, pause: float) -> None:
        if read is None:
            await asyncio.sleep(3600)
        head = await reader.read(read or 1)
        self.opened += head.startswith(b"HTTP/1.1 200")
        self.refused += not head.startswith(b"HTTP/1.1 200")
        left = time.monotonic() + 5.0
        while time.monotonic() < left and await reader.read(read or 1):  # noqa: ASYNC110 - that is how slowly it reads
            await asyncio.sleep(pause)


async def run(soak: Soak) -> Findings:
    """Both halves."""
    findings = Findings(scenario=soak.scenario)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    soak.tell("starting MongoDB and the server")
    with mongod.replica_set(1) as servers:
        async with StatsDListener() as statsd:
            port = free_port()
            command = [sys.executable, "-m", "sample_server", f"--port={port}", "--max-streams-per-user=5000"]
            command += [f"--statsd=127.0.0.1:{statsd.port}", "--mongodb-driver=pymongo"]
            server = ServerProcess(
                "server",
                command,
                ready=lambda process: process.wait_for_line("Ctrl-C ends it", 60),
                environment={"SAMPLE_MONGODB_URI": servers.uri},
            )
            await asyncio.to_thread(server.start)
            try:
                await _measure(soak, findings, server, statsd, port)
            finally:
                await asyncio.to_thread(server.stop, 30)
            findings.must("Traceback" not in server.output, "the server wrote a traceback")
    return findings


async def _measure(soak: Soak, findings: Findings, server: ServerProcess, statsd: StatsDListener, port: int) -> None:
    bearer = server.wait_for_line(r"Bearer ([\w-]+)").group(1)
    half = soak.seconds / 2
    probe = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROBE, f"127.0.0.1:{port}", bearer, str(2 * half), stdout=asyncio.subprocess.PIPE
    )
    asked = asyncio.create_task(probe.communicate())
    soak.begin()
    before = len(statsd.samples("tornado_sse_auth.session.validate"))
    await asyncio.sleep(half)
    turned = time.time()
    between = len(statsd.samples("tornado_sse_auth.session.validate"))
    crowd, until = _Crowd(port, bearer), time.monotonic() + half
    soak.tell(f"{CROWD} streams at once, {SLOW} slow, {DEAD} that read nothing")
    await asyncio.gather(
        *(crowd.come(65_536, 0.0, until) for _ in range(CROWD)),
        *(crowd.come(16, 1.0, until) for _ in range(SLOW)),
        *(crowd.come(None, 0.0, until) for _ in range(DEAD)),
    )
    validations = [sample.value for sample in statsd.samples("tornado_sse_auth.session.validate")]
    output, _ = await asked
    answers = [json.loads(line) for line in output.splitlines()]
    findings.must(all(status == 200 for _, _, status in answers), "somebody who was signed in was refused")
    alone, crowded = validations[before:between], validations[between:]
    p99 = [_p99(alone), _p99(crowded)]
    findings.notes.append(f"validation p99: {p99[0]:.3f} ms alone, {p99[1]:.3f} ms in the crowd")
    findings.notes.append(
        f"whole requests p99: {_p99([ms for at, ms, _ in answers if at < turned]):.1f} ms alone, "
        f"{_p99([ms for at, ms, _ in answers if at >= turned]):.1f} ms in the crowd"
    )
    findings.notes.append(f"streams: {crowd.opened} opened, {crowd.refused} refused")
    findings.must(crowd.opened >= CROWD, "not everybody got a stream")
    findings.must(p99[1] <= 2 * max(p99[0], AT_LEAST), "validation takes more than twice as long in a crowd")


def _p99(values: Sequence[float]) -> float:
    return sorted(values)[int(len(values) * 0.99)] if values else float("nan")
