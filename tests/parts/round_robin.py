"""A TCP load balancer: each new connection goes to the next server. It knows nothing of HTTP, cookies or sessions."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import cycle


@dataclass
class RoundRobin:
    """`port` is where it listens; `connections` counts those passed on, by the server's port."""

    port: int = 0
    connections: Counter[int] = field(default_factory=Counter)

    @property
    def url(self) -> str:
        """The address under which all servers are one."""
        return f"http://127.0.0.1:{self.port}"


@asynccontextmanager
async def round_robin(ports: Sequence[int], *, port: int = 0) -> AsyncIterator[RoundRobin]:
    """Balance over servers on loopback."""
    balancer = RoundRobin()
    turn = cycle(ports)
    open_tasks: set[asyncio.Task[None]] = set()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while chunk := await reader.read(65_536):
                writer.write(chunk)
                await writer.drain()
        with suppress(OSError, RuntimeError):
            writer.write_eof()

    async def passed_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        open_tasks.add(task)
        task.add_done_callback(open_tasks.discard)
        target = next(turn)
        balancer.connections[target] += 1
        upstream: asyncio.StreamWriter | None = None
        try:
            from_server, upstream = await asyncio.open_connection("127.0.0.1", target)
            # Whoever hangs up first, the other side hears of it: a client that has gone must reach the server.
            async with asyncio.TaskGroup() as group:
                group.create_task(pump(reader, upstream))
                group.create_task(pump(from_server, writer))
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            for end in (writer, upstream):
                if end is not None:
                    end.transport.abort()

    server = await asyncio.start_server(passed_on, "127.0.0.1", port)
    balancer.port = server.sockets[0].getsockname()[1]
    try:
        yield balancer
    finally:
        server.close()
        for task in tuple(open_tasks):
            task.cancel()
        await asyncio.gather(*open_tasks, return_exceptions=True)
