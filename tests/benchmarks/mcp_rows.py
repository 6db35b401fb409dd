"""MCP through authentication, against the official SDK on uvicorn with its bearer check."""

from __future__ import annotations

import time
from contextlib import ExitStack
from statistics import median
from typing import Any

from tests.benchmarks.mcp_load import CHANGED, MCPProcess, running
from tests.benchmarks.rows import Row
from tests.parts import mongod

CALLS = 2000
ROUNDS = 4
PAIRS = 3
LISTENERS = 900
CHANGES = 15
CORE = 0


def mcp() -> list[Row]:
    """Calls over memory and over MongoDB, memory of a listen stream, fan-out of a change."""
    rows = [_calls("memory")]
    with mongod.shared() as servers:
        try:
            rows.append(_calls("MongoDB", mongo=servers.uri, database="benchmarks_mcp"))
        finally:
            mongod.drop_database(servers.uri, "benchmarks_mcp")
    return [*rows, *_listening()]


def _calls(store: str, **options: Any) -> Row:
    """CPU seconds a call: what a process on one core can do, whatever its neighbours do meanwhile."""
    found: list[tuple[float, float]] = []
    for _ in range(PAIRS):
        with running("ours", CORE, **options) as project, running("sdk", CORE) as sdk:
            costs: list[tuple[float, float]] = []
            for _ in range(ROUNDS + 1):
                costs.append((project.calls(CALLS)[0], sdk.calls(CALLS)[0]))
            found.append((median(cost for cost, _ in costs[1:]), median(cost for _, cost in costs[1:])))
    project_cost, baseline = (median(costs) for costs in zip(*found, strict=True))
    return Row(
        name=f"MCP tools/call through authentication, {store}",
        unit="x",
        value=baseline / project_cost,
        reach=1.4,
        at_least=True,
        project=project_cost * 1e6,
        baseline=baseline * 1e6,
        detail="µs of CPU a call; the SDK on uvicorn",
    )


def _listening() -> list[Row]:
    with ExitStack() as stack:
        processes = [stack.enter_context(running(name, CORE, sessions=LISTENERS)) for name in ("ours", "sdk")]
        memory, cost, last = zip(*(_listened(process) for process in processes), strict=True)
    return [
        Row(
            name="memory of an idle MCP listen stream",
            unit="x",
            value=memory[0] / memory[1],
            reach=0.8,
            project=memory[0] / 1024,
            baseline=memory[1] / 1024,
            detail="KiB",
        ),
        Row(
            name=f"one change to {LISTENERS} MCP listen streams",
            unit="x",
            value=cost[0] / cost[1],
            reach=1.0,
            project=cost[0] * 1e6,
            baseline=cost[1] * 1e6,
            detail="µs of CPU a stream",
        ),
        Row(
            name=f"one change to the last of {LISTENERS} MCP listen streams",
            unit="x",
            value=last[0] / last[1],
            reach=1.0,
            project=last[0] * 1e3,
            baseline=last[1] * 1e3,
            detail="ms",
        ),
    ]


def _listened(process: MCPProcess) -> tuple[float, float, float]:
    """Bytes a stream; CPU seconds of a change for each stream; seconds until the last stream has it."""
    process.calls(64)  # what is made at the first request is not a stream's
    before = process.usage()
    with process.listeners() as listeners:
        opened = process.usage()
        waits = []
        for _ in range(CHANGES):
            started = time.monotonic()
            process.announce()
            listeners.expect(CHANGED)
            waits.append(time.monotonic() - started)
        told = process.usage()
    return (
        (opened.memory - before.memory) / len(listeners),
        (told.cpu - opened.cpu) / CHANGES / len(listeners),
        median(waits),
    )
