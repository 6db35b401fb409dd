"""Clients that are programs of their own: each prints where its user must go, and waits for the browser to return."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client

from tests.mcp.clients.consent import consent
from tests.mcp.clients.work import CALLS, PAUSE, Order, Outcome, work_in_rounds
from tests.parts.fastmcp_environment import find_fastmcp
from tests.parts.node import SCRIPTS, find_node, find_packages, placed
from tests.parts.process import free_port

_AUTHORIZE = re.compile(r"https?://[^\s\"'<>]+/oauth/authorize\?[^\s\"'<>]+")

# Seconds from one round of three calls to the next. mcp-remote renews its token before any request in the token's last
# minute; calls made at once share a renewal (chunk-KJCT2FXL.js of 0.15.1: TOKEN_EXPIRY_MARGIN_MS, refreshInFlight).
# With tokens of four seconds that is one a round, and some while it starts. Twenty within 30 s it takes for a loop, and
# does not keep the next one (TOKEN_STORM_LIMIT, TOKEN_STORM_WINDOW_MS). Ten rounds stay under that.
BRIDGE_ROUND = 3.0


class Program:
    """A running client. For each authorization URL that it prints, its user signs in and consents."""

    def __init__(self, order: Order) -> None:
        self.output: list[str] = []
        self.sign_ins = 0
        self._order = order
        self._seen: set[str] = set()
        self._people: set[asyncio.Task[None]] = set()

    async def run(
        self, command: Sequence[str | Path], *, environment: Mapping[str, str] | None = None, timeout: float = 120.0
    ) -> str:
        """All that it prints until it ends by itself. Raises AssertionError for another status than 0."""
        child = await asyncio.create_subprocess_exec(
            *map(str, command),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
            process_group=0,
        )
        assert child.stdout is not None
        try:
            async with asyncio.timeout(self._order.seconds + timeout):
                while line := await child.stdout.readline():
                    self.read(line.decode("utf-8", "replace"))
                status = await child.wait()
        except TimeoutError:
            raise AssertionError(f"no end\n{self.text[-4000:]}") from None
        finally:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            await child.wait()
            await self.close()
        assert status == 0, f"status {status}\n{self.text[-4000:]}"
        return self.text

    @property
    def text(self) -> str:
        """The output so far."""
        return "".join(self.output)

    def read(self, line: str) -> None:
        """Take in a line of output."""
        self.output.append(line)
        for url in _AUTHORIZE.findall(line):
            if url not in self._seen:
                self._seen.add(url)
                self.sign_ins += 1
                self._people.add(asyncio.create_task(self._sign_in(url)))

    async def close(self) -> None:
        """Nobody needs to sign in any more. Raises what went wrong for who tried."""
        for task in self._people:
            if not task.done():
                task.cancel()
        for result in await asyncio.gather(*self._people, return_exceptions=True):
            if isinstance(result, Exception):
                raise result

    async def _sign_in(self, url: str) -> None:
        order = self._order
        answer = await consent(url, order.account, server=order.server, provider=order.provider)
        async with httpx.AsyncClient(trust_env=False, timeout=30) as browser:
            await browser.get(answer)


async def _lines_of_json(order: Order, command: Sequence[str | Path]) -> Outcome:
    """A script of ours around a client: its last line is the result."""
    program = Program(order)
    text = await program.run(command)
    result = json.loads(text.rstrip("\n").rpartition("\n")[2])["result"]
    assert result["signIns"] == program.sign_ins
    return Outcome(result["calls"], result["failures"], program.sign_ins, result["version"])


def _options(order: Order, **more: Any) -> str:
    return json.dumps({"url": order.url, "seconds": order.seconds, "pause": int(PAUSE * 1000), **more})


async def typescript_v1(order: Order) -> Outcome:
    """`@modelcontextprotocol/sdk`."""
    return await _lines_of_json(order, [find_node(), placed(SCRIPTS / "mcp-client.mjs"), _options(order, sdk="v1")])


async def typescript_v2(order: Order) -> Outcome:
    """`@modelcontextprotocol/client`, which negotiates 2026-07-28."""
    return await _lines_of_json(order, [find_node(), placed(SCRIPTS / "mcp-client.mjs"), _options(order, sdk="v2")])


async def fastmcp(order: Order, *, configuration: Any = None) -> Outcome:
    """FastMCP's client, in an environment of its own. `configuration`: what people write in a file `mcp.json`."""
    script = Path(__file__).parent / "fastmcp_client.py"
    return await _lines_of_json(order, [find_fastmcp(), script, _options(order, configuration=configuration)])


async def mcp_remote(order: Order) -> Outcome:
    """`mcp-remote`: a bridge for programs that know only standard input and output; it does the OAuth part."""
    bridge = find_packages() / "node_modules" / "mcp-remote" / "dist" / "proxy.js"
    arguments = [order.url, str(free_port()), "--allow-http", "--transport", "http-only"]
    return await bridged(order, [find_node(), bridge, *arguments])


async def bridged(order: Order, command: Sequence[str | Path]) -> Outcome:
    """A client that knows only standard input and output, and the program that it starts."""
    program, outcome = Program(order), Outcome()
    read_end, write_end = os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home, os.fdopen(write_end, "w") as log:
        listener = asyncio.create_task(_listen(read_end, program))
        server = StdioServerParameters(
            command=str(command[0]),
            args=[str(word) for word in command[1:]],
            # Without a PATH it finds no browser to open.
            env={"HOME": home, "MCP_REMOTE_CONFIG_DIR": home, "PATH": str(find_node().parent)},
        )
        try:
            async with Client(stdio_client(server, errlog=log), mode="legacy") as client:
                outcome.version = client.protocol_version
                await work_in_rounds(order, outcome, client.call_tool, BRIDGE_ROUND)
        except Exception as error:
            raise AssertionError(f"mcp-remote: {error!r}\n{program.text[-4000:]}") from error
        finally:
            listener.cancel()
            await asyncio.gather(listener, return_exceptions=True)
            await program.close()
    outcome.sign_ins = program.sign_ins
    return outcome


async def _listen(descriptor: int, program: Program) -> None:
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(descriptor)
    )
    try:
        while line := await reader.readline():
            program.read(line.decode("utf-8", "replace"))
    finally:
        transport.close()


async def inspector(order: Order) -> Outcome:
    """`@modelcontextprotocol/inspector --cli`, which has a load test of its own: as many calls at once as the others
    have workers."""
    program = Program(order)
    node = find_node()
    launcher = find_packages() / "node_modules" / "@modelcontextprotocol" / "inspector" / "clients" / "launcher"
    options = {
        "transport": "http",
        "protocol-era": "auto",
        "method": "tools/call",
        "tool-name": "upstream_profile",
        "format": "json",
        "load-concurrency": len(CALLS),
        "load-duration": int(order.seconds),
        "load-rate": int(len(CALLS) / PAUSE),
        "callback-url": f"http://127.0.0.1:{free_port()}/oauth/callback",
    }
    command: list[str | Path] = [node, launcher / "build" / "index.js", "--cli", order.url, "--load"]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        # It asks nobody without a terminal, unless it may open a browser; without a PATH it finds none.
        environment = {"HOME": home, "PATH": str(node.parent), "MCP_AUTO_OPEN_ENABLED": "true"}
        named = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        text = await program.run([*command, *named], environment=environment)
    load = json.loads(text.rstrip("\n").rpartition("\n")[2])["result"]
    failures = [f"{load['toolErrors']} tool errors, {load['errors']} errors", *load["errorMessages"]]
    return Outcome(load["requests"], failures if load["ok"] < load["requests"] else [], program.sign_ins)
