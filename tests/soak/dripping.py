"""The half-open requests of `tests.soak.half_open`, in a process of their own: `python -m tests.soak.dripping PORT
SECONDS`."""

from __future__ import annotations

import asyncio
import json
import random
import resource
import sys
import time
from contextlib import suppress

REQUESTS = 2000
EACH = 10.0  # seconds from one byte to the next
BEGINNING = b"GET /me HTTP/1.1\r\nX-Never-Ends: "


def main(port: int, seconds: float) -> None:
    """Keep so many open: who is closed comes back. Prints, as JSON, the seconds for which each was kept that was
    closed."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    print(json.dumps(asyncio.run(_drip(port, seconds))))


async def _drip(port: int, seconds: float) -> list[float]:
    kept: list[float] = []
    tasks = [asyncio.create_task(_again_and_again(port, kept)) for _ in range(REQUESTS)]
    done, unended = await asyncio.wait(tasks, timeout=seconds)
    for task in unended:
        task.cancel()
    await asyncio.gather(*unended, return_exceptions=True)
    for task in done:
        task.result()
    return kept


async def _again_and_again(port: int, kept: list[float]) -> None:
    while True:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        begun = time.monotonic()
        closed = asyncio.create_task(reader.read())
        try:
            writer.write(BEGINNING)
            patience = random.uniform(0.0, EACH)
            while not (await asyncio.wait([closed], timeout=patience))[0]:
                writer.write(b"x")
                patience = EACH
            kept.append(time.monotonic() - begun)
        finally:
            closed.cancel()
            with suppress(asyncio.CancelledError, ConnectionError):
                await closed
            writer.transport.abort()


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
