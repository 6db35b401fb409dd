"""An event-stream parser written from the standard's grammar alone (WHATWG HTML, section 9.2.6), and a raw client."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Self

BOUND = 10.0


@dataclass(frozen=True)
class Received:
    """One dispatched event."""

    event: str
    data: str
    id: str


class Parser:
    """Bytes in, events out. `retries` and `comments` are what else was seen."""

    def __init__(self) -> None:
        self._bytes = b""
        self._data: list[str] = []
        self._event = ""
        self._id = ""
        self.retries: list[int] = []
        self.comments: list[str] = []

    def feed(self, content: bytes) -> list[Received]:
        held = self._bytes + content
        events = []
        begin = 0
        # A CR at the end may be half of a CRLF: it waits for the next byte.
        for match in re.finditer(rb"\r\n|\n|\r(?=.)", held, re.DOTALL):
            if (event := self._line(held[begin : match.start()].decode())) is not None:
                events.append(event)
            begin = match.end()
        self._bytes = held[begin:]
        return events

    def _line(self, line: str) -> Received | None:
        if not line:
            data, event = self._data, self._event
            self._data, self._event = [], ""
            return Received(event or "message", "\n".join(data), self._id) if data else None
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "":
            self.comments.append(value)
        elif name == "data":
            self._data.append(value)
        elif name == "event":
            self._event = value
        elif name == "id" and "\0" not in value:
            self._id = value
        elif name == "retry" and re.fullmatch("[0-9]+", value, re.ASCII):
            self.retries.append(int(value))
        return None


class Client:
    """One connection that has asked for a stream. It reads only when told to."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.status = 0
        self.headers: dict[str, str] = {}
        self.parser = Parser()
        self._events: list[Received] = []
        self.finished = False  # the answer came to its proper end

    async def request(self, path: str = "/", *, method: str = "GET", version: str = "1.1", **headers: str) -> Self:
        """Send a request without a body and read the head of the answer."""
        lines = [f"{method} {path} HTTP/{version}", "Host: test"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.writer.write("\r\n".join([*lines, "", ""]).encode())
        async with asyncio.timeout(BOUND):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        first, *rest = head.strip().split("\r\n")
        self.status = int(first.split()[1])
        self.headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in rest)}
        self.finished = False
        return self

    async def _content(self) -> bytes:
        """The next piece of the body, b"" at its end."""
        if "chunked" not in self.headers.get("transfer-encoding", ""):
            content = await self.reader.read(65536)
            self.finished = not content
            return content
        size = int(await self.reader.readuntil(b"\r\n"), 16)
        content = (await self.reader.readexactly(size + 2))[:-2]
        self.finished = not size
        return content

    async def event(self) -> Received:
        """The next event. Raises `EOFError` at the end of the answer."""
        async with asyncio.timeout(BOUND):
            while not self._events:
                content = b"" if self.finished else await self._content()
                if not content:
                    raise EOFError
                self._events += self.parser.feed(content)
        return self._events.pop(0)

    async def named(self, event: str) -> Received:
        """The next event of that name, skipping others."""
        while (received := await self.event()).event != event:
            pass
        return received

    async def rest(self) -> list[Received]:
        """Everything to the end of the answer."""
        events = []
        try:
            while True:
                events.append(await self.event())
        except EOFError:
            return events

    async def close(self) -> None:
        self.writer.close()
        try:
            async with asyncio.timeout(BOUND):
                await self.writer.wait_closed()
        except OSError:
            return  # the server was first, with a reset

    async def gone(self) -> None:
        """Wait until the server has closed the connection, reading what is left."""
        try:
            async with asyncio.timeout(BOUND):
                while await self.reader.read(1 << 20):
                    pass
        except ConnectionError:
            return


@asynccontextmanager
async def connect(port: int, *, tls: ssl.SSLContext | None = None, limit: int = 1 << 22) -> AsyncIterator[Client]:
    """A connection to the loopback port, closed at the end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls, limit=limit)
    client = Client(reader, writer)
    try:
        yield client
    finally:
        await client.close()
