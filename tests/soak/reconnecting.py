"""The crowd of `tests.soak.crowd`, a process of its own: `python -m tests.soak.reconnecting`, with its orders as JSON
on standard input. It runs when nobody else wants the processor: a crowd has machines of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import resource
import socket
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

AWAY_AFTER_REFUSAL = (0.5, 1.5)  # times what the server said, or seconds
AWAY = 1.5  # seconds from the leaving of all to their return
SLOW_READ = 1024  # bytes a second
RECEIVE_BUFFER = 8192  # of those who read slowly or not at all


def main() -> None:
    """Run the orders: `port`, `bearers`, `begin` and `until` (epoch seconds), `wave` (seconds) and `streams` a wave, or
    `slow` and `dead` readers. Prints one line of JSON a wave, or one at the end."""
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    asyncio.run(_run(json.load(sys.stdin)))


async def _run(orders: dict[str, Any]) -> None:
    await asyncio.sleep(max(0.0, orders["begin"] - time.time()))
    if "wave" in orders:
        await _waves(orders)
    else:
        await _stalled(orders)


def _request(port: int, bearer: str) -> bytes:
    head = f"GET /events HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {bearer}\r\n"
    return f"{head}Last-Event-ID: 1\r\n\r\n".encode()


@dataclass
class _Wave:
    """Everybody at once."""

    streams: int
    left: float = field(default_factory=time.time)
    begun: float = 0.0
    complete: float | None = None
    opened: int = 0
    answers: Counter[str] = field(default_factory=Counter)

    def note(self, answer: str) -> None:
        self.answers[answer] += 1
        self.opened += answer == "200"
        if self.opened == self.streams and self.complete is None:
            self.complete = time.time()


class _Client(asyncio.Protocol):
    """One stream of the crowd; comes again until it has one."""

    def __init__(self, port: int, bearer: str) -> None:
        self._port = port
        self._bearer = bearer
        self._wave: _Wave | None = None
        self._transport: asyncio.Transport | None = None
        self._task: asyncio.Task[None] | None = None

    def leave(self) -> None:
        """Go without a word."""
        self._wave = None
        if self._task is not None:
            self._task.cancel()
        if self._transport is not None:
            self._transport.abort()

    def come(self, wave: _Wave) -> None:
        """Open a stream."""
        self._task = asyncio.create_task(self._connect(wave))

    async def _connect(self, wave: _Wave, wait: float = 0.0) -> None:
        await asyncio.sleep(wait)
        try:
            self._transport, _ = await asyncio.get_running_loop().create_connection(
                lambda: self, "127.0.0.1", self._port
            )
        except OSError as error:
            wave.note(type(error).__name__)
            self._again(wave, 1.0)
            return
        self._wave = wave
        self._transport.write(_request(self._port, self._bearer))

    def _again(self, wave: _Wave, seconds: float) -> None:
        self._task = asyncio.create_task(self._connect(wave, seconds * random.uniform(*AWAY_AFTER_REFUSAL)))

    def data_received(self, data: bytes) -> None:
        wave, self._wave = self._wave, None
        if wave is None:
            return
        status = data[9:12].decode("latin-1")
        if status == "200":
            wave.note("200")
            return
        head, _, body = data.decode("latin-1").partition("\r\n\r\n")
        with contextlib.suppress(ValueError):
            status += f" {json.loads(body)['error']}"
        wave.note(status)
        wait = head.lower().partition("retry-after: ")[2].partition("\r\n")[0]
        assert self._transport is not None
        self._transport.abort()
        self._again(wave, float(wait or 1))

    def connection_lost(self, exc: Exception | None) -> None:
        wave, self._wave = self._wave, None
        if wave is not None:
            wave.note(f"closed: {type(exc).__name__}")
            self._again(wave, 1.0)


async def _waves(orders: dict[str, Any]) -> None:
    bearers = orders["bearers"]
    clients = [_Client(orders["port"], bearers[number % len(bearers)]) for number in range(orders["streams"])]
    while time.time() + orders["wave"] <= orders["until"]:
        wave = _Wave(len(clients))
        for client in clients:
            client.leave()
        await asyncio.sleep(AWAY)
        wave.begun = time.time()
        for client in clients:
            client.come(wave)
        await asyncio.sleep(orders["wave"] - (time.time() - wave.left))
        told = {
            "left": wave.left,
            "begun": wave.begun,
            "complete": wave.complete,
            "opened": wave.opened,
            "answers": wave.answers,
        }
        print(json.dumps(told), flush=True)


async def _stalled(orders: dict[str, Any]) -> None:
    closed: Counter[str] = Counter()

    async def stall(bearer: str, kind: str) -> None:
        loop = asyncio.get_running_loop()
        while True:
            with socket.socket() as sock, contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
                sock.setblocking(False)
                await loop.sock_connect(sock, ("127.0.0.1", orders["port"]))
                await loop.sock_sendall(sock, _request(orders["port"], bearer))
                while not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                    if kind == "slow" and not await loop.sock_recv(sock, SLOW_READ):
                        break
                    await asyncio.sleep(1.0)
            closed[kind] += 1
            await asyncio.sleep(random.uniform(*AWAY_AFTER_REFUSAL))

    tasks = [
        asyncio.create_task(stall(orders["bearers"][0], kind)) for kind in ("slow", "dead") for _ in range(orders[kind])
    ]
    await asyncio.sleep(max(0.0, orders["until"] - time.time()))
    for task in tasks:
        task.cancel()
    print(json.dumps(closed), flush=True)


if __name__ == "__main__":
    main()
