"""A server of `servers.py`, and the load on it: plain sockets, so that the client is never what is slow."""

from __future__ import annotations

import json
import selectors
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from signal import SIGINT
from typing import Any, cast

from tests.parts.process import ServerProcess

ROOT = Path(__file__).parents[2]
PATIENCE = 30.0


@dataclass(frozen=True)
class Usage:
    """Since the process began: CPU in seconds; memory now in bytes."""

    cpu: float
    memory: int


@dataclass(frozen=True)
class Server:
    """A running server and the cookies of its sessions."""

    port: int
    cookies: tuple[str, ...]

    @property
    def url(self) -> str:
        """Its origin."""
        return f"http://127.0.0.1:{self.port}"

    def usage(self) -> Usage:
        """What it has used so far."""
        return Usage(**self.ask("GET", "/-/usage"))

    def ask(self, method: str, path: str) -> Any:
        """One request outside of the measurement; the JSON of its answer, None where there is no body."""
        with self.connect() as connection:
            connection.sendall(self._request(method, path, self.cookies[0]))
            body = answer(connection)
            return json.loads(body) if body else None

    def connect(self) -> socket.socket:
        """A connection."""
        return socket.create_connection(("127.0.0.1", self.port), PATIENCE)

    def requests(self, count: int, concurrency: int = 8) -> float:
        """CPU seconds of the server for each of `count` requests of `/`, over connections that are kept and always
        have one under way; the sessions take turns."""
        with ExitStack() as stack:
            selector = stack.enter_context(selectors.DefaultSelector())
            for number in range(concurrency):
                request = self._request("GET", "/", self.cookies[number % len(self.cookies)])
                selector.register(stack.enter_context(self.connect()), selectors.EVENT_READ, request)
            before = self.usage()
            connections = list(selector.get_map().values())
            for key in connections:
                _connection(key).sendall(key.data)
            sent, answered = len(connections), 0
            while answered < count:
                for key, _ in selector.select(PATIENCE):
                    answer(_connection(key))
                    answered += 1
                    if sent < count:
                        _connection(key).sendall(key.data)
                        sent += 1
            return (self.usage().cpu - before.cpu) / count

    @contextmanager
    def streams(self) -> Iterator[Streams]:
        """One open stream for each session."""
        opened = Streams(self)
        try:
            for cookie in self.cookies:
                opened.open(self._request("GET", "/stream", cookie))
            yield opened
        finally:
            opened.close()

    def _request(self, method: str, path: str, cookie: str) -> bytes:
        # `Origin` as a browser would send it, for the methods that change something.
        head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\nCookie: {cookie}\r\n"
        return f"{head}Origin: {self.url}\r\nContent-Length: 0\r\n\r\n".encode()


class Connections:
    """The client's ends of open streams."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._connections: list[socket.socket] = []

    def __len__(self) -> int:
        return len(self._connections)

    def add(self, connection: socket.socket) -> None:
        """One more."""
        self._connections.append(connection)
        self._selector.register(connection, selectors.EVENT_READ)

    def expect(self, marker: bytes) -> None:
        """Read until every stream has brought `marker`."""
        missing = len(self._connections)
        deadline = time.monotonic() + PATIENCE
        while missing:
            ready = self._selector.select(deadline - time.monotonic())
            if not ready:
                raise RuntimeError(f"{missing} streams did not get the event within {PATIENCE} s")
            for key, _ in ready:
                missing -= receive(key.fileobj).count(marker)

    def close(self) -> None:
        """All of them."""
        self._selector.close()
        for connection in self._connections:
            connection.close()


class Streams(Connections):
    """Streams of a `Server`."""

    def __init__(self, server: Server) -> None:
        super().__init__()
        self._server = server

    def open(self, request: bytes) -> None:
        """One more; its first block has arrived. Raises RuntimeError where the server refuses it."""
        connection = self._server.connect()
        connection.sendall(request)
        received = b""
        while not received.endswith(b"\n\n\r\n"):  # the last block, in a chunk of its own
            received += receive(connection)
            if not received.startswith(b"HTTP/1.1 200 "[: len(received)]):
                connection.close()
                raise RuntimeError(received.decode(errors="replace"))
        self.add(connection)


def _connection(key: selectors.SelectorKey) -> socket.socket:
    return cast(socket.socket, key.fileobj)


def receive(connection: Any) -> bytes:
    received: bytes = connection.recv(65_536)
    if not received:
        raise RuntimeError("the server closed the connection")
    return received


def answer(connection: socket.socket) -> bytes:
    """The body of one answer. Raises RuntimeError for a refusal."""
    received = receive(connection)
    while b"\r\n\r\n" not in received:
        received += receive(connection)
    head, _, body = received.partition(b"\r\n\r\n")
    status = head.split(b" ", 2)[1]
    if not status.startswith(b"2"):
        raise RuntimeError(f"{head.decode()}\n{body.decode(errors='replace')}")
    length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
    while len(body) < int(length or 0):
        body += receive(connection)
    return body


@contextmanager
def running(name: str, **options: Any) -> Iterator[Server]:
    """A server; the options are those of `servers.py`."""
    with started("tests.benchmarks.servers", name, options) as (_, told):
        yield Server(told["port"], tuple(told["cookies"]))


@contextmanager
def started(module: str, name: str, options: Mapping[str, Any]) -> Iterator[tuple[ServerProcess, dict[str, Any]]]:
    """A process of `module`, and the line of JSON that it prints when it listens."""
    command: list[str | Path] = [sys.executable, "-m", module, name]
    for option, value in options.items():
        command += [f"--{option}", str(value)]
    line = r'^\{"port".*\}$'
    process = ServerProcess(name, command, ready=lambda server: _listens(server, line), folder=ROOT, stop_signal=SIGINT)
    with process:
        yield process, json.loads(process.wait_for_line(line)[0])


def _listens(server: ServerProcess, line: str) -> None:
    server.wait_for_line(line, PATIENCE)


@contextmanager
def statsd() -> Iterator[int]:
    """The port of a socket that takes packets and reads none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sink:
        sink.bind(("127.0.0.1", 0))
        yield sink.getsockname()[1]


def interleaved(servers: Sequence[Server], count: int, rounds: int, concurrency: int = 8) -> list[list[float]]:
    """CPU seconds a request of each server, `rounds` times in turn, after one round that does not count."""
    found: list[list[float]] = [[] for _ in servers]
    for number in range(rounds + 1):
        for position, server in enumerate(servers):
            cost = server.requests(count, concurrency)
            if number:
                found[position].append(cost)
    return found
