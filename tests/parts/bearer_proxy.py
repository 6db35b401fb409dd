"""A TCP proxy that presents a credential: for clients that cannot be given one.

async with BearerProxy(server_port, "token") as proxy: ... proxy.port ...
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from types import TracebackType
from typing import Self

_CHUNK = 65_536
_CLOSE = 5.0
_HEAD_LIMIT = 1_048_576


class BearerProxy:
    """Listens on a free port of loopback and forwards HTTP/1.1 to `target_port`, with one `Authorization` line more in
    each request. Where the client names the proxy's address, in whichever header, the target reads its own."""

    def __init__(self, target_port: int, bearer: str) -> None:
        self.port = 0
        self._target_port = target_port
        self._line = f"Authorization: Bearer {bearer}\r\n".encode()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._ends: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", limit=_HEAD_LIMIT)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.close()
        # Not cancelled: a task that is closing its ends must not be stopped half-way.
        for end in self._ends:
            end.transport.abort()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer), name="bearer proxy")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._ends.add(writer)
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target_port, limit=_HEAD_LIMIT)
        self._ends.add(far_writer)
        directions = {
            asyncio.create_task(self._requests(reader, far_writer)),
            asyncio.create_task(self._answers(far_reader, writer)),
        }
        try:
            # A client that closes its stream cancels, so one end's end is both ends' end.
            await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for direction in directions:
                direction.cancel()
            await asyncio.gather(*directions, return_exceptions=True)
            for end in (writer, far_writer):
                await self._closed(end)

    async def _closed(self, end: asyncio.StreamWriter) -> None:
        """What was written still leaves, for as long as somebody reads it."""
        end.close()
        with suppress(OSError, TimeoutError):
            await asyncio.wait_for(end.wait_closed(), _CLOSE)
        end.transport.abort()
        self._ends.discard(end)

    async def _requests(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            writer.write(self._rewritten(head))
            for line in head.lower().split(b"\r\n"):
                name, _, value = line.partition(b":")
                if name == b"content-length":
                    writer.write(await reader.readexactly(int(value)))
                elif name == b"transfer-encoding":
                    await self._chunks(reader, writer)
            await writer.drain()

    def _rewritten(self, head: bytes) -> bytes:
        for name in (b"127.0.0.1", b"localhost"):
            head = head.replace(b"%b:%d" % (name, self.port), b"%b:%d" % (name, self._target_port))
        return head[:-2] + self._line + b"\r\n"

    async def _chunks(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        size = -1
        while size:
            line = await reader.readuntil(b"\r\n")
            size = int(line.partition(b";")[0], 16)
            writer.write(line + await reader.readexactly(size + 2))

    async def _answers(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(_CHUNK):
            writer.write(chunk)
            await writer.drain()
