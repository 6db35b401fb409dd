"""The three servers, each as two processes, and the probes put to them."""

from __future__ import annotations

import asyncio
import secrets
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

from tests.comparison.probes import PROBES, Subject
from tests.parts import mongod
from tests.parts.fastmcp_environment import VERSION, find_fastmcp
from tests.parts.process import ServerProcess, free_port
from tests.parts.token_issuer import TokenIssuer

NAMES = ("tornado_sse_auth", "SDK 2.3.0", f"FastMCP {VERSION}")
HERE = Path(__file__).parent


@asynccontextmanager
async def subjects(mongodb_uri: str) -> AsyncIterator[list[Subject]]:
    """All of them, running, in the order of `NAMES`."""
    async with TokenIssuer() as issuer:
        with ExitStack() as stack:
            database = f"comparison_{secrets.token_hex(4)}"
            stack.callback(mongod.drop_database, mongodb_uri, database)
            found, starting = [], []
            for name in NAMES:
                ports = free_port(), free_port()
                for port in ports:
                    command: list[str | Path] = [sys.executable, "-m", "tests.comparison.sdk_server"]
                    arguments = [str(port), issuer.issuer]
                    if name == NAMES[0]:
                        command = [sys.executable, "-m", "tests.comparison.our_server"]
                        arguments += [str(ports[0]), mongodb_uri, database]
                    elif name == NAMES[2]:
                        command = [find_fastmcp(), HERE / "fastmcp_server.py"]
                    process = ServerProcess(
                        f"{name} {port}", [*command, *arguments], ready=_listens(port), folder=HERE.parents[1]
                    )
                    stack.callback(process.kill)
                    starting.append(asyncio.to_thread(process.start))
                found.append(Subject(name, *(f"http://127.0.0.1:{port}" for port in ports), issuer))
            await asyncio.gather(*starting)
            yield found


def _listens(port: int) -> Callable[[ServerProcess], None]:
    def ready(process: ServerProcess) -> None:
        process.wait_for_port(port, 60)

    return ready


async def compare(names: Sequence[str], mongodb_uri: str) -> dict[str, list[str]]:
    """The answers of each server to the probes of these names."""
    probes = {probe.__name__: probe for probe in PROBES}
    async with subjects(mongodb_uri) as found:
        rows = await asyncio.gather(*(asyncio.gather(*(probes[name](subject) for subject in found)) for name in names))
    return dict(zip(names, map(list, rows), strict=True))
