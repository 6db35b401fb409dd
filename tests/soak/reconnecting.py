"""The crowd of `tests.soak.crowd`, a process of its own: `python -m tests.soak.reconnecting`, with its orders as JSON
on standard input. It runs when nobody else wants the processor: a crowd has machines of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import re
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
LAST_SEEN = "Last-Event-ID: 1"
RECEIVE_BUFFER = 8192  # of those who read slowly or not at all


def main() -> None:
    """Run the orders: `port`, `bearers`, `begin` and `until` (epoch seconds), and `streams` with the seconds of a
    `wave`, or `streams` that come and come back when they are lost, or `slow` and `dead` readers. Prints one line of
    JSON a wave, or one at the end."""
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    asyncio.run(_run(json.load(sys.stdin)))


async def _run(orders: dict[str, Any]) -> None:
    await asyncio.sleep(max(0.0, orders["begin"] - time.time()))
    if "wave" in orders:
        await _waves(orders)
    elif "streams" in orders:
        await _stay(orders)
    else:
        await _stalled(orders)


def _request(port: int, bearer: str, *headers: str) -> bytes:
    lines = ["GET /events HTTP/1.1", f"Host: 127.0.0.1:{port}", f"Authorization: Bearer {bearer}", *headers]
    return "\r\n".join([*lines, "", ""]).encode()


@dataclass
class _Wave:
    """Everybody at once."""

    streams: int
    left: float = field(default_factory=time.time)
    begun: float = 0.0
    complete: float | None = None
    told: float | None = None  # when the last of them knew what it had missed
    opened: int = 0
    caught_up: int = 0
    answers: Counter[str] = field(default_factory=Counter)

    def note(self, answer: str) -> None:
        self.answers[answer] += 1
        self.opened += answer == "200"
        if self.opened == self.streams and self.complete is None:
            self.complete = time.time()

    def note_gap(self) -> None:
        self.caught_up += 1
        if self.caught_up == self.streams and self.told is None:
            self.told = time.time()

    def lines(self) -> dict[str, Any]:
        """All of it but how many were wanted."""
        return {
            "left": self.left,
            "begun": self.begun,
            "complete": self.complete,
            "told": self.told,
            "opened": self.opened,
            "answers": self.answers,
        }


class _Client(asyncio.Protocol):
    """One stream of the crowd; comes again until it has one, and when it loses that, with those who come `back`."""

    def __init__(self, port: int, bearer: str, back: _Wave | None = None) -> None:
        self._port = port
        self._bearer = bearer
        self._back = back
        self._retry = 1.0
        self._wave: _Wave | None = None
        self._behind: _Wave | None = None
        self._seen = b""
        self._transport: asyncio.Transport | None = None
        self._task: asyncio.Task[None] | None = None

    def leave(self) -> None:
        """Go without a word."""
        self._wave = self._behind = None
        if self._task is not None:
            self._task.cancel()
        if self._transport is not None:
            self._transport.abort()

    def stay_away(self) -> None:
        """Go, for good."""
        self._back = None
        self.leave()

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
        self._wave = self._behind = wave
        self._seen = b""
        self._transport.write(_request(self._port, self._bearer, LAST_SEEN))

    def _again(self, wave: _Wave, seconds: float) -> None:
        self._task = asyncio.create_task(self._connect(wave, seconds * random.uniform(*AWAY_AFTER_REFUSAL)))

    def data_received(self, data: bytes) -> None:
        if self._behind is not None:
            self._seen += data
            if b"event: gap" in self._seen:
                self._behind.note_gap()
                self._behind, self._seen = None, b""
        wave, self._wave = self._wave, None
        if wave is None:
            return
        status = data[9:12].decode("latin-1")
        if status == "200":
            wave.note("200")
            if told := re.search(rb"retry: (\d+)", data):
                self._retry = int(told[1]) / 1000
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
        elif self._back is not None:
            self._task = asyncio.create_task(self._connect(self._back, self._retry))


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
        print(json.dumps(wave.lines()), flush=True)


async def _stay(orders: dict[str, Any]) -> None:
    bearers, streams = orders["bearers"], orders["streams"]
    came, back = _Wave(streams), _Wave(streams)
    clients = [_Client(orders["port"], bearers[number % len(bearers)], back) for number in range(streams)]
    for client in clients:
        client.come(came)
    await asyncio.sleep(max(0.0, orders["until"] - time.time()))
    print(json.dumps([came.lines(), back.lines()]), flush=True)
    for client in clients:
        client.stay_away()


async def _stalled(orders: dict[str, Any]) -> None:
    closed: Counter[str] = Counter()

    async def stall(bearer: str, kind: str) -> None:
        loop = asyncio.get_running_loop()
        seen: list[str] = []  # who comes for the first time waits for news, and not for a replay
        while True:
            with socket.socket() as sock, contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
                sock.setblocking(False)
                await loop.sock_connect(sock, ("127.0.0.1", orders["port"]))
                await loop.sock_sendall(sock, _request(orders["port"], bearer, *seen))
                while not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                    if kind == "slow" and not await loop.sock_recv(sock, SLOW_READ):
                        break
                    await asyncio.sleep(1.0)
            closed[kind] += 1
            seen = [LAST_SEEN]
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
