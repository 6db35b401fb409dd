"""How long a server takes for an answer that needs nothing but a turn of its loop, asked by a process that does nothing
else: what whoever drives the scenario has to do is not the server's lag."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from tests.parts.sample_server import SampleServer

PROBE = """
import http.client, json, sys, time
port, connection = int(sys.argv[1]), None
while True:
    begun = time.time()
    try:
        connection = connection or http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("GET", "/livez")
        connection.getresponse().read()
        print(json.dumps([begun, time.time()]), flush=True)
    except (OSError, http.client.HTTPException):
        connection = None
    time.sleep(0.1)
"""


class LagProbe:
    """Asks `server` for `/livez` ten times a second, as long as the `async with` lasts."""

    def __init__(self, server: SampleServer) -> None:
        self._server = server
        self._answers: list[tuple[float, float]] = []
        self._child: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._child = await asyncio.create_subprocess_exec(
            sys.executable, "-c", PROBE, str(self._server.port), stdout=asyncio.subprocess.PIPE
        )
        self._reading = asyncio.create_task(self._read(self._child), name="lag probe")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._child is not None
        assert self._reading is not None
        if self._child.returncode is None:
            self._child.kill()
        await self._child.wait()
        await self._reading

    @property
    def seconds(self) -> Sequence[float]:
        """Of each answer that does not fall into a time when the server was stopped or not there."""
        away = self._server.absences
        return [end - begun for begun, end in self._answers if not any(begun < b and a < end for a, b in away)]

    @property
    def left_out(self) -> int:
        """Answers that do."""
        return len(self._answers) - len(self.seconds)

    async def _read(self, child: asyncio.subprocess.Process) -> None:
        assert child.stdout is not None
        async for line in child.stdout:
            begun, end = json.loads(line)
            self._answers.append((begun, end))
