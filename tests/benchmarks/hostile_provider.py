"""REL-15, REL-16: a provider that drips, floods, compresses, hangs or is not there: what does a call cost, and who else
notices?"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import multiprocessing
import os
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from socketserver import BaseRequestHandler, ThreadingTCPServer
from typing import Any
from unittest.mock import patch

from tests.benchmarks.rows import Row, percentile
from tornado_sse_auth.clock import SystemClock
from tornado_sse_auth.oauth.http import HTTPClient, NoAnswer

CALLS = 100
AT_A_TIME = 10
ROUNDS = 3
DEADLINE = 1.0  # seconds of a call
TURN = 0.002
HEAD = b"HTTP/1.1 200 OK\r\n"
MEGABYTE = b" " * 1_000_000
BOMB = gzip.compress(MEGABYTE * 100)
HANGS = "hangs.invalid"


def drip(connection: socket.socket) -> None:
    """A byte each 20 ms, which no time-out of a single read notices."""
    connection.sendall(HEAD + b"Content-Length: 100000\r\n\r\n")
    while True:
        connection.sendall(b" ")
        time.sleep(0.02)


def flood(connection: socket.socket) -> None:
    """300 MB."""
    connection.sendall(HEAD + b"Content-Length: 300000000\r\n\r\n")
    for _ in range(300):
        connection.sendall(MEGABYTE)


def bomb(connection: socket.socket) -> None:
    """100 KB that are 100 MB when they are unpacked."""
    connection.sendall(HEAD + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(BOMB) + BOMB)


def reset(connection: socket.socket) -> None:
    """RST instead of an answer."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


BEHAVIOURS: Sequence[Callable[[socket.socket], None]] = (drip, flood, bomb, reset)


def hostile_provider() -> list[Row]:
    """Many calls, ten at a time, to each kind of provider."""
    with _provider() as ports:
        dripping, flooding, bombing, resetting = (f"http://127.0.0.1:{port}" for port in ports)
        no_tls = resetting.replace("http:", "https:")
        with patch.object(socket, "getaddrinfo", _look_up(socket.getaddrinfo)):
            return [
                *_rows("REL-15, a provider that drips, sends 300 MB or a gzip bomb", [dripping, flooding, bombing]),
                *_rows(
                    "REL-16, a name that hangs or is not there, a refusal, a reset, no TLS",
                    [f"http://{HANGS}", "http://gone.invalid", "http://127.0.0.1:1", resetting, no_tls],
                ),
            ]


def _rows(what: str, urls: Sequence[str]) -> list[Row]:
    rounds = [asyncio.run(_calls(urls)) for _ in range(ROUNDS)]
    took = [seconds for calls, _, _ in rounds for seconds in calls]
    # What blocks the loop does so in each round; what else the machine has to do, hardly.
    lag = min(lag for _, lag, _ in rounds)
    growth = max(growth for *_, growth in rounds)
    return [
        Row(
            name=f"{what}: a call whose deadline is {DEADLINE:g} s, p99 of {len(took)}",
            unit="s",
            value=percentile(took, 99),
            reach=2 * DEADLINE,
        ),
        Row(name=f"{what}: the loop meanwhile, late by at most", unit="ms", value=lag * 1000, reach=50),
        Row(name=f"{what}: memory, highest above that before", unit="MiB", value=growth / 2**20, reach=16),
    ]


async def _calls(urls: Sequence[str]) -> tuple[list[float], float, int]:
    """Seconds of each call, the longest delay of a timer, and by how many bytes the process grew meanwhile."""
    took: list[float] = []
    left = iter(list(urls) * (CALLS // len(urls)))
    client = HTTPClient(SystemClock())

    async def call() -> None:
        for url in left:
            begun = time.monotonic()
            with contextlib.suppress(NoAnswer):
                await client.request("POST", url, timeout=DEADLINE, body="grant_type=refresh_token")
                raise RuntimeError(f"{url} gave an answer")
            took.append(time.monotonic() - begun)

    before = _memory()
    async with _watched() as seen:
        await asyncio.gather(*(call() for _ in range(AT_A_TIME)))
    await client.aclose()
    return took, max(late for late, _ in seen), max(memory for _, memory in seen) - before


@contextlib.asynccontextmanager
async def _watched() -> AsyncIterator[list[tuple[float, int]]]:
    """How late a timer was, each two milliseconds, and the memory then."""
    seen: list[tuple[float, int]] = []

    async def look() -> None:
        while True:
            due = time.monotonic() + TURN
            await asyncio.sleep(TURN)
            seen.append((time.monotonic() - due, _memory()))

    looking = asyncio.create_task(look())
    try:
        yield seen
    finally:
        looking.cancel()


def _memory() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _look_up(real: Callable[..., Any]) -> Callable[..., Any]:
    def look_up(host: Any, *more: Any, **options: Any) -> Any:
        if host in (HANGS, HANGS.encode()):
            time.sleep(2 * DEADLINE)
            raise OSError("no such name")
        return real(host, *more, **options)

    return look_up


@contextlib.contextmanager
def _provider() -> Iterator[list[int]]:
    """A process of its own, with a port for each of its ways to behave."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs,), daemon=True)
    process.start()
    try:
        yield ours.recv()
    finally:
        process.kill()
        process.join()


def _serve(parent: Connection) -> None:
    servers = [_Server(behave) for behave in BEHAVIOURS]
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    parent.send([server.server_address[1] for server in servers])
    threading.Event().wait()


class _Server(ThreadingTCPServer):
    daemon_threads = True
    request_queue_size = 100

    def __init__(self, behave: Callable[[socket.socket], None]) -> None:
        class Answer(BaseRequestHandler):
            def handle(self) -> None:
                with contextlib.suppress(OSError):  # the client hangs up when it has seen enough
                    self.request.recv(65_536)
                    behave(self.request)

        super().__init__(("127.0.0.1", 0), Answer)
