"""A TCP proxy between a client and a real server, which makes the network fail.

async with TCPProxy(server_port) as proxy: ... proxy.port ...
with proxy.delay(0.2): ...        each chunk waits that long, in each direction
with proxy.blackhole(): ...       bytes vanish, connections stay open, also new ones
async with proxy.refuse(): ...    nobody listens
proxy.cut()                       every connection ends with a reset, now
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from types import TracebackType
from typing import Self

_CHUNK = 65_536
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class _Connection:
    """One accepted connection and the one opened for it."""

    def __init__(self, client: asyncio.StreamWriter) -> None:
        self.writers = [client]
        self.swallowed = False

    def reset(self) -> None:
        for writer in self.writers:
            if raw := writer.get_extra_info("socket"):
                # Closing a socket that lingers for 0 s sends RST instead of FIN.
                with suppress(OSError):
                    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            writer.transport.abort()


class TCPProxy:
    """Listens on a free port of loopback and forwards to `target_port`."""

    def __init__(self, target_port: int, target_host: str = "127.0.0.1") -> None:
        self.port = 0
        self.accepted = 0
        """Connections accepted so far."""
        self._target = (target_host, target_port)
        self._server: asyncio.Server | None = None
        self._connections: dict[_Connection, asyncio.Task[None]] = {}
        self._delay = 0.0
        self._blackhole = False

    async def __aenter__(self) -> Self:
        await self._listen()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._close()

    @property
    def open_connections(self) -> int:
        """Connections that are open now."""
        return len(self._connections)

    def cut(self) -> None:
        """Reset every connection, on both sides."""
        for connection in list(self._connections):
            connection.reset()

    @contextmanager
    def delay(self, seconds: float) -> Iterator[None]:
        """Hold each chunk back for that long, in each direction."""
        before, self._delay = self._delay, seconds
        try:
            yield
        finally:
            self._delay = before

    @contextmanager
    def blackhole(self) -> Iterator[None]:
        """Swallow all bytes and keep the connections. At the end those that lost bytes are reset."""
        self._blackhole = True
        try:
            yield
        finally:
            self._blackhole = False
            for connection in list(self._connections):
                if connection.swallowed:
                    connection.reset()

    @asynccontextmanager
    async def refuse(self) -> AsyncIterator[None]:
        """Reset every connection and refuse new ones; then listen on the same port again."""
        await self._close()
        try:
            yield
        finally:
            await self._listen()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
        tasks = list(self._connections.values())
        self.cut()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        connection = _Connection(writer)
        task = asyncio.create_task(self._serve(connection, reader, writer), name=f"proxy of {self._target}")
        self._connections[connection] = task
        task.add_done_callback(lambda _: self._connections.pop(connection, None))

    async def _serve(self, connection: _Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._target)
        except OSError:
            connection.reset()
            return
        connection.writers.append(far_writer)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pump(connection, reader, far_writer))
                both.create_task(self._pump(connection, far_reader, writer))
        finally:
            for end in connection.writers:
                end.close()

    async def _pump(self, connection: _Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while chunk := await reader.read(_CHUNK):
                if self._delay:
                    await asyncio.sleep(self._delay)
                if self._blackhole:
                    connection.swallowed = True
                    continue
                writer.write(chunk)
                await writer.drain()
            # The end of one direction is handed on; the other may still have something to say.
            if self._blackhole:
                connection.swallowed = True
            elif writer.can_write_eof():
                writer.write_eof()
            return
        connection.reset()
