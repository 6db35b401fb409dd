"""The official suite against our fixtures server, through authentication.

`python -m tests.conformance.suite ARGUMENTS`; they are those of `conformance server` but for `--url`, which is ours,
and `--mongodb-uri`, which goes to our server.
"""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.parts.bearer_proxy import BearerProxy
from tests.parts.node import find_node, find_packages

ROOT = Path(__file__).parents[2]
BOUND = 240.0
_COMMAND = Path("node_modules", "@modelcontextprotocol", "conformance", "dist", "index.js")
_LINE = re.compile(r"^[✓✗~] (\S+): (\d+) passed, (\d+) failed")
_UNSCORED = re.compile(r"^  [✓✗~] (\S+) \(")


@dataclass(frozen=True)
class Outcome:
    """What a run said. `scenarios`: passed and failed checks of each; `unscored`: those that do not count."""

    exit: int
    scenarios: dict[str, tuple[int, int]]
    unscored: frozenset[str]
    output: str

    @property
    def red(self) -> set[str]:
        """Scenarios with a failed check, whether they count or not."""
        return {name for name, (_, failed) in self.scenarios.items() if failed}

    @property
    def passed(self) -> int:
        """Passed checks of all scenarios that count."""
        return sum(passed for name, (passed, _) in self.scenarios.items() if name not in self.unscored)

    @property
    def failed(self) -> int:
        """Failed checks of all scenarios that count."""
        return sum(failed for name, (_, failed) in self.scenarios.items() if name not in self.unscored)


@asynccontextmanager
async def fixtures_server(*arguments: str) -> AsyncIterator[str]:
    """Our server in a process of its own, and the URL under which one needs no credential."""
    command = [sys.executable, "-m", "tests.conformance.server", *arguments]
    server = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, cwd=ROOT)
    try:
        async with asyncio.timeout(60):
            told = dict([await _told(server), await _told(server)])
        port = int(told["listening"].rpartition(":")[2].partition("/")[0])
        async with BearerProxy(port, told["bearer"]) as proxy:
            yield f"http://127.0.0.1:{proxy.port}/mcp"
    finally:
        if server.returncode is None:
            server.terminate()
            await asyncio.wait_for(server.wait(), 30)


async def _told(server: asyncio.subprocess.Process) -> tuple[str, str]:
    assert server.stdout is not None
    name, _, value = (await server.stdout.readline()).decode().strip().partition(" ")
    return name, value


async def run(url: str, *arguments: str) -> Outcome:
    """The suite's scenarios for servers. Its own files go nowhere."""
    command: Sequence[Any] = [find_node(), find_packages() / _COMMAND, "server", "--url", url, *arguments]
    suite = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        async with asyncio.timeout(BOUND):
            output = (await suite.communicate())[0].decode()
    finally:
        if suite.returncode is None:
            suite.kill()
            await suite.wait()
    summary = output.partition("=== SUMMARY ===")[2]
    lines = [match for line in summary.splitlines() if (match := _LINE.match(line))]
    scenarios = {match[1]: (int(match[2]), int(match[3])) for match in lines}
    unscored = frozenset(match[1] for line in summary.splitlines() if (match := _UNSCORED.match(line)))
    return Outcome(suite.returncode or 0, scenarios, unscored, output)


async def main() -> int:
    """For a person: everything that the suite says."""
    arguments = sys.argv[1:]
    ours: list[str] = []
    if "--mongodb-uri" in arguments:
        place = arguments.index("--mongodb-uri")
        ours, arguments = arguments[place : place + 2], arguments[:place] + arguments[place + 2 :]
    async with fixtures_server(*ours) as url:
        outcome = await run(url, *arguments)
    print(outcome.output)
    print(f"of what counts: {outcome.passed} passed, {outcome.failed} failed; exit status {outcome.exit}")
    return outcome.exit


if __name__ == "__main__":
    raise SystemExit(asyncio.run(main()))
