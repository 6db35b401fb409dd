"""`python -m tests.graphite [--definition]`: draws docs/graphite from a real run of three minutes; `--definition` only
writes the dashboard's files."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import sys
import time
from collections.abc import Sequence

import httpx

from tests.graphite.definition import DASHBOARD, FOLDER, GRAPHS, URLS, text, urls
from tests.graphite.drive import driven_servers
from tests.parts import graphite as real
from tests.parts import mongod as mongo
from tests.parts.sample_server import SampleServer, User, signed_in

SECONDS = 180.0
FROZEN = (100.0, 115.0)


async def draw() -> None:
    """The pictures."""
    with real.running() as graphite, mongo.replica_set(1) as mongod:
        began = time.time()
        async with driven_servers(graphite, mongod) as servers:
            users = [await signed_in(servers[0], f"visitor{number}") for number in range(8)]
            load = [asyncio.create_task(_visit(user, servers, number)) for number, user in enumerate(users)]
            await asyncio.sleep(FROZEN[0])
            with mongod.members[0].stopped():
                await asyncio.sleep(FROZEN[1] - FROZEN[0])
            await asyncio.sleep(SECONDS - FROZEN[1])
            for task in load:
                task.cancel()
            await asyncio.gather(*load, return_exceptions=True)
            since = f"-{int(time.time() - began)}s"
            for graph in GRAPHS:
                picture = graphite.get(f"{graph.url(width=620, height=240)}&from={since}&bgcolor=white&fgcolor=black")
                (FOLDER / f"{graph.slug}.png").write_bytes(picture)


async def _visit(user: User, servers: Sequence[SampleServer], number: int) -> None:
    """Requests that come and go, and a stream at each server."""
    await asyncio.sleep(8.0 * number)
    async with user.stream(servers[0]), user.stream(servers[1]), user.client(servers[number % 2]) as client:
        while True:
            for _ in range(30 + 10 * number):
                with contextlib.suppress(httpx.TransportError):
                    await client.get("/me")
                await asyncio.sleep(0.05)
            await asyncio.sleep(number)


def main() -> int:
    """What was asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.graphite", description=__doc__)
    parser.add_argument("--definition", action="store_true", help="the dashboard's files alone")
    arguments = parser.parse_args()
    logging.getLogger("tornado.access").setLevel(logging.CRITICAL)  # the scripted provider's
    DASHBOARD.write_text(text())
    URLS.write_text(urls())
    if not arguments.definition:
        asyncio.run(draw())
    return 0


if __name__ == "__main__":
    sys.exit(main())
