"""A server whose `/stream` answers as a test says, connection by connection, and a page that watches it.

server.script(opening_events, dying_midway); ... ; assert server.asked[1].last_event_id == "7"
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tornado.web import Application, RequestHandler

import tornado_sse_auth.web
from tests.parts.web_server import listening

CLIENT_MODULE = Path(tornado_sse_auth.web.__file__).parent / "static" / "client.js"
PAGE_MODULE = Path(__file__).parent / "browser" / "watch.js"
POLICY = "default-src 'none'; script-src 'self'; connect-src 'self'"
BOUND = 20.0


@dataclass(frozen=True)
class Asked:
    """A request for the stream, and the loop's time at which it came."""

    at: float
    last_event_id: str | None
    accept: str


class Connection:
    """One request, in the hands of a test's script."""

    def __init__(self, handler: RequestHandler, asked: Asked) -> None:
        self._handler = handler
        self._gone = asyncio.Event()
        self.asked = asked

    async def send(self, raw: str | bytes) -> None:
        """Bytes of the event stream; the first ones bring the headers."""
        handler = self._handler
        handler.set_header("Content-Type", "text/event-stream; charset=utf-8")
        handler.set_header("Cache-Control", "no-store")
        handler.write(raw)
        await handler.flush()

    async def event(self, data: Any, *, event: str, id: int | None = None) -> None:  # noqa: A002 - the field's name
        """One whole event."""
        number = "" if id is None else f"id: {id}\n"
        await self.send(f"{number}event: {event}\ndata: {json.dumps(data)}\n\n")

    async def answer(self, status: int, body: Any = None, **headers: str) -> None:
        """No stream: a JSON answer, or text as it is."""
        self._handler.set_status(status)
        for name, value in headers.items():
            self._handler.set_header(name.replace("_", "-"), value)
        if status != 204:
            self._handler.write(body if isinstance(body, str) else json.dumps(body or {}))
        await self._handler.finish()

    def cut(self) -> None:
        """The connection is gone, without an end of the answer."""
        connection: Any = self._handler.request.connection
        connection.stream.close()

    async def answer_broken(self) -> None:
        """Bytes that are no HTTP answer. A mere cut would not do: the browser itself asks again on another of its
        connections."""
        connection: Any = self._handler.request.connection
        await connection.stream.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n")
        connection.stream.close()

    async def until_gone(self) -> None:
        """Wait until the browser has closed the connection."""
        async with asyncio.timeout(BOUND):
            await self._gone.wait()

    def left(self) -> None:
        """The browser has closed the connection."""
        self._gone.set()


Script = Callable[[Connection], Awaitable[None]]


@dataclass
class ScriptedStreams:
    """The running server. `asked` grows with each request for the stream."""

    origin: str = ""
    asked: list[Asked] = field(default_factory=list)
    _scripts: list[Script] = field(default_factory=list)

    def script(self, *scripts: Script) -> None:
        """What becomes of the next connections, one each; the last script is for all further ones."""
        self._scripts += scripts

    def next_script(self) -> Script:
        """The script for a connection that has come."""
        return self._scripts.pop(0) if len(self._scripts) > 1 else self._scripts[0]


class _StreamHandler(RequestHandler):
    connection: Connection | None = None

    def initialize(self, server: ScriptedStreams) -> None:
        self._server = server

    async def get(self) -> None:
        headers = self.request.headers
        asked = Asked(asyncio.get_running_loop().time(), headers.get("Last-Event-ID"), headers.get("Accept", ""))
        self._server.asked.append(asked)
        self.connection = Connection(self, asked)
        await self._server.next_script()(self.connection)

    def on_connection_close(self) -> None:
        if self.connection is not None:
            self.connection.left()


class _PageHandler(RequestHandler):
    def get(self) -> None:
        self.set_header("Content-Security-Policy", POLICY)
        self.finish('<!doctype html><title>watch</title><script type="module" src="/watch.js"></script>')


class _ModuleHandler(RequestHandler):
    def initialize(self, path: Path) -> None:
        self._path = path

    def get(self) -> None:
        self.set_header("Content-Type", "text/javascript; charset=utf-8")
        self.finish(self._path.read_bytes())


@asynccontextmanager
async def scripted_streams() -> AsyncIterator[ScriptedStreams]:
    """A server on a free loopback port."""
    server = ScriptedStreams()
    application = Application(
        [
            ("/", _PageHandler),
            ("/watch.js", _ModuleHandler, {"path": PAGE_MODULE}),
            ("/auth/client.js", _ModuleHandler, {"path": CLIENT_MODULE}),
            ("/stream", _StreamHandler, {"server": server}),
        ],
        log_function=lambda handler: None,
    )
    async with listening(application) as server.origin:
        yield server
