"""Load on a server of `mcp_servers.py`: `tools/call` and `subscriptions/listen` of 2026-07-28 over plain sockets."""

from __future__ import annotations

import json
import os
import selectors
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from tests.benchmarks.load import PATIENCE, Connections, Usage, answer, receive, started

REVISION = "2026-07-28"
META = {"io.modelcontextprotocol/protocolVersion": REVISION, "io.modelcontextprotocol/clientCapabilities": {}}
CHANGED = b"notifications/tools/list_changed"


@dataclass(frozen=True)
class MCPProcess:
    """A running server, its process id, and credentials for it."""

    port: int
    pid: int
    bearers: tuple[str, ...]

    def usage(self) -> Usage:
        """What it has used so far, as the system sees it."""
        ticks = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        cpu = sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")
        return Usage(cpu, pages * os.sysconf("SC_PAGE_SIZE"))

    def calls(self, count: int, concurrency: int = 16) -> tuple[float, float]:
        """CPU and wall seconds for each of `count` calls of `add`, over connections that always have one under way."""
        request = self._request("tools/call", {"name": "add", "arguments": {"a": 1, "b": 2}}, 0)
        with ExitStack() as stack:
            selector = stack.enter_context(selectors.DefaultSelector())
            for _ in range(concurrency):
                selector.register(stack.enter_context(self.connect()), selectors.EVENT_READ)
            before, started = self.usage(), time.monotonic()
            connections = [cast(socket.socket, key.fileobj) for key in selector.get_map().values()]
            for connection in connections:
                connection.sendall(request)
            sent, answered = len(connections), 0
            while answered < count:
                for key, _ in selector.select(PATIENCE):
                    connection = cast(socket.socket, key.fileobj)
                    if b'"structuredContent":{"result":3}' not in answer(connection):
                        raise RuntimeError("a call gave no sum")
                    answered += 1
                    if sent < count:
                        connection.sendall(request)
                        sent += 1
            return (self.usage().cpu - before.cpu) / count, (time.monotonic() - started) / count

    def announce(self) -> None:
        """Let the server tell its listeners something."""
        with self.connect() as connection:
            connection.sendall(self._request("tools/call", {"name": "announce", "arguments": {}}, 0))
            answer(connection)

    def connect(self) -> socket.socket:
        """A connection."""
        return socket.create_connection(("127.0.0.1", self.port), PATIENCE)

    @contextmanager
    def listeners(self) -> Iterator[Connections]:
        """One listen stream for each credential."""
        opened = Connections()
        try:
            for number in range(len(self.bearers)):
                connection = self.connect()
                opened.add(connection)
                params = {"notifications": {"toolsListChanged": True}}
                connection.sendall(self._request("subscriptions/listen", params, number))
                received = b""
                while b"acknowledged" not in received or not received.endswith(b"\n\r\n"):
                    received += receive(connection)
            yield opened
        finally:
            opened.close()

    def _request(self, method: str, params: dict[str, Any], bearer: int) -> bytes:
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": {"_meta": META, **params}}).encode()
        lines = [
            "POST /mcp HTTP/1.1",
            f"Host: 127.0.0.1:{self.port}",
            f"Authorization: Bearer {self.bearers[bearer]}",
            "Accept: application/json, text/event-stream",
            "Content-Type: application/json",
            f"MCP-Protocol-Version: {REVISION}",
            f"Mcp-Method: {method}",
            *([f"Mcp-Name: {params['name']}"] if "name" in params else []),
            f"Content-Length: {len(body)}",
        ]
        return "\r\n".join([*lines, "", ""]).encode() + body


@contextmanager
def running(name: str, core: int | None = None, **options: Any) -> Iterator[MCPProcess]:
    """A server, on one core alone where `core` names it."""
    with started("tests.benchmarks.mcp_servers", name, options) as (process, told):
        if core is not None:
            os.sched_setaffinity(process.pid, {core})
        yield MCPProcess(told["port"], process.pid, tuple(told["bearers"]))
