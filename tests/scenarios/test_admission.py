"""A crowd at the door of the server."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import pytest
from tornado.iostream import IOStream
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

from tests.streams.serving import until
from tornado_sse_auth import BoundedHTTPServer
from tornado_sse_auth.testing import ManualClock
from tornado_sse_auth.web import admission

CROWD = 150


async def test_who_is_inside_is_served_before_the_crowd() -> None:
    """REL-18: a hundred and fifty connect at once, and all are served in the end; one who was connected before and
    asks again and again is answered between them. The listening socket was given no room for so many."""
    served: list[str] = []

    class Name(RequestHandler):
        def get(self, name: str) -> None:
            served.append(name)
            self.finish(name)

    server = BoundedHTTPServer(Application([(r"/(.*)", Name)]))
    (listener,) = bind_sockets(0, "127.0.0.1", backlog=1)
    server.add_socket(listener)
    port = listener.getsockname()[1]

    async def ask(name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(f"GET /{name} HTTP/1.1\r\nHost: here\r\n\r\n".encode())
        await reader.readuntil(f"\r\n\r\n{name}".encode())

    inside = await asyncio.open_connection("127.0.0.1", port)
    await ask("inside", *inside)
    crowd = [await asyncio.open_connection("127.0.0.1", port) for _ in range(CROWD)]
    served.clear()
    async with asyncio.timeout(30):
        waiting = [asyncio.create_task(ask("crowd", *each)) for each in crowd]
        for _ in range(5):
            await ask("inside", *inside)
        before = served.index("inside")
        await asyncio.gather(*waiting)
    assert before < CROWD / 2
    assert served.count("crowd") == CROWD
    assert served.count("inside") == 5
    await leave([inside, *crowd])
    server.stop()
    await server.close_all_connections()


async def test_one_a_turn_and_more_after_a_long_one() -> None:
    """REL-18: a crowd that comes after a quiet hour is let in one by one all the same; those who have waited while the
    loop stood still come together, so that a process that is always busy keeps nobody out."""
    clock = ManualClock()
    inside: list[socket.socket] = []
    (listener,) = bind_sockets(0, "127.0.0.1")
    door = admission.Admission(listener, lambda newcomer, _: inside.append(newcomer), admission.Newcomers(), clock)
    crowd: list[socket.socket] = []

    def come(count: int) -> None:
        for _ in range(count):
            newcomer = socket.create_connection(listener.getsockname())
            newcomer.send(b"GET")
            crowd.append(newcomer)

    async def next_turn_with_newcomers() -> int:
        before = len(inside)
        while len(inside) == before:  # noqa: ASYNC110 - one turn of the loop after the other
            await asyncio.sleep(0)
        return len(inside) - before

    async with asyncio.timeout(30):
        come(1)
        assert await next_turn_with_newcomers() == 1
        clock.advance(3600)
        come(30)
        assert [await next_turn_with_newcomers() for _ in range(3)] == [1, 1, 1]
        clock.advance(10 * admission.MORE_AFTER + 0.001)
        assert [await next_turn_with_newcomers() for _ in range(3)] == [11, 1, 1]
    door.close()
    for each in [*inside, *crowd, listener]:
        each.close()


async def test_no_answer_keeps_those_out_whose_turn_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """REL-18: where the one before never has its answer, they come at a steady pace all the same, and what the loop
    was late for is made up for."""
    monkeypatch.setattr(admission, "INTERVAL", 1 / 512)  # of which sums are exact
    clock = ManualClock()
    inside: list[socket.socket] = []
    (listener,) = bind_sockets(0, "127.0.0.1")
    asks_in_vain = admission.Newcomers()
    door = admission.Admission(listener, lambda newcomer, _: inside.append(newcomer), asks_in_vain, clock)
    ours, theirs = socket.socketpair()
    asking = IOStream(ours)
    asks_in_vain.asks(asking)
    crowd = [socket.create_connection(listener.getsockname()) for _ in range(12)]
    for newcomer in crowd:
        newcomer.send(b"GET")
    async with asyncio.timeout(30):
        for turns, expected in [(0, 1), (1, 2), (1, 3), (4, 7), (1, 8), (1000, 9), (1, 10)]:
            clock.advance(turns * admission.INTERVAL)
            await until(lambda expected=expected: len(inside) == expected)
            for _ in range(20):
                await asyncio.sleep(admission.LOOK_AGAIN)
            assert len(inside) == expected
    door.close()
    asking.close()
    for each in [*inside, *crowd, theirs, listener]:
        each.close()


class Slow(RequestHandler):
    """Waits for its gate, `/stream` with the headers sent; everybody else does not."""

    def initialize(self, gate: asyncio.Event, inside: list[str]) -> None:
        self.gate = gate
        self.inside = inside

    async def get(self, name: str) -> None:
        if name != "quick":
            self.inside.append(name)
            if name == "stream":
                await self.flush()
            await self.gate.wait()
        self.finish(name)


@asynccontextmanager
async def slow_server(gate: asyncio.Event, inside: list[str]) -> AsyncIterator[int]:
    server = BoundedHTTPServer(Application([(r"/(.*)", Slow, {"gate": gate, "inside": inside})]))
    (listener,) = bind_sockets(0, "127.0.0.1")
    server.add_socket(listener)
    try:
        async with asyncio.timeout(30):
            yield listener.getsockname()[1]
    finally:
        gate.set()
        server.stop()
        await server.close_all_connections()


async def send(port: int, content: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(content)
    return reader, writer


async def leave(connections: Iterable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]) -> None:
    writers = [writer for _, writer in connections]
    for writer in writers:
        writer.transport.abort()
    await asyncio.gather(*(writer.wait_closed() for writer in writers), return_exceptions=True)


def get(name: str) -> bytes:
    return f"GET /{name} HTTP/1.1\r\nHost: here\r\n\r\n".encode()


async def test_one_newcomer_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """REL-18: of twenty-eight one is let in; when it leaves, or has the headers of its answer, the next one is. Who is
    inside is answered meanwhile."""
    monkeypatch.setattr(admission, "INTERVAL", 60.0)
    gate, inside = asyncio.Event(), list[str]()
    async with slow_server(gate, inside) as port:
        old = await send(port, get("quick"))
        await old[0].readuntil(b"quick")
        crowd = [await send(port, get("wait")) for _ in range(4)]
        await until(lambda: len(inside) == 1)
        for _ in range(20):
            old[1].write(get("quick"))
            await old[0].readuntil(b"quick")
        for served in range(1, 4):
            assert len(inside) == served
            await leave(crowd[served - 1 : served])
            await until(lambda served=served: len(inside) > served)
        streams = [await send(port, get("stream")) for _ in range(24)]
        assert "stream" not in inside
        await leave(crowd[3:])
        for reader, _ in streams:
            await reader.readuntil(b"\r\n\r\n")
        assert inside.count("stream") == 24
        await leave([old, *streams])


@pytest.mark.parametrize(
    ("content", "interval"),
    [(b"", 60.0), (b"GET /quick HT", 60.0), (get("wait"), admission.INTERVAL)],
    ids=["silent", "half a request", "slow answer"],
)
async def test_who_holds_up_nobody(monkeypatch: pytest.MonkeyPatch, content: bytes, interval: float) -> None:
    """REL-24: two hundred who ask nothing, or half of something, or for what takes long, are ahead of one who is
    answered all the same."""
    monkeypatch.setattr(admission, "INTERVAL", interval)
    gate, inside = asyncio.Event(), list[str]()
    async with slow_server(gate, inside) as port:
        ahead = [await send(port, content) for _ in range(200)]
        reader, writer = await send(port, get("quick"))
        await reader.readuntil(b"quick")
        assert not gate.is_set()
        await leave([*ahead, (reader, writer)])
