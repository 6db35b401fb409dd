"""What an open stream costs, and one event to many of them."""

from __future__ import annotations

import resource
import time
from statistics import median

from tests.benchmarks.load import Server, Streams, running, statsd
from tests.benchmarks.progress import progress
from tests.benchmarks.rows import Row

STREAMS = 1000
ROUNDS = 5
EVENTS = 40
MARKER = b"fan-out"
IDLE_STREAMS = 5000
IDLE_SECONDS = 30
SETTLING = 3.0


def opening() -> list[Row]:
    """Memory of an open stream and CPU to open it; each stream has a session of its own. A fresh process a round:
    memory that a process once had is not given back."""
    found = []
    for number in range(ROUNDS):
        progress(f"opening streams, round {number + 1} of {ROUNDS}")
        found.append((_open("cached"), _open("bare")))
    rows = []
    for position, (name, unit, scale) in enumerate(
        (("memory of an open stream", "KiB", 1 / 1024), ("opening a stream", "µs of CPU", 1e6))
    ):
        ours = median(project[position] for project, _ in found) * scale
        theirs = median(baseline[position] for _, baseline in found) * scale
        ratio = median(project[position] / baseline[position] for project, baseline in found)
        rows.append(Row(name=name, unit="x", value=ratio, reach=1.5, project=ours, baseline=theirs, detail=unit))
    return rows


def _open(name: str) -> tuple[float, float]:
    with statsd() as port, running(name, sessions=STREAMS, statsd=port) as server:
        server.requests(64)  # what is made at the first request is not a stream's
        before = server.usage()
        with server.streams():
            after = server.usage()
    return (after.memory - before.memory) / STREAMS, (after.cpu - before.cpu) / STREAMS


def idle() -> list[Row]:
    """A process with nothing but open streams, over two periods of heartbeats."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # the server inherits it
    try:
        with statsd() as port, running("cached", sessions=IDLE_STREAMS, statsd=port) as server, server.streams():
            time.sleep(SETTLING)
            before = server.usage()
            for left in range(IDLE_SECONDS, 0, -1):
                progress(f"{IDLE_STREAMS} idle streams, {left} s to go")
                time.sleep(1)
            after = server.usage()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return [
        Row(
            name=f"an idle process with {IDLE_STREAMS:,} streams",
            unit="%",
            value=100 * (after.cpu - before.cpu) / IDLE_SECONDS,
            reach=2,
            detail=f"of one core over {IDLE_SECONDS} s; memory {(after.memory - before.memory) / 1024:+.0f} KiB",
        )
    ]


def fan_out() -> list[Row]:
    """One event to many streams, against a loop of `write` and `flush`."""
    with (
        statsd() as port,
        running("bare", sessions=STREAMS) as bare,
        running("cached", sessions=STREAMS, statsd=port) as project,
        bare.streams() as theirs,
        project.streams() as ours,
    ):
        found: list[tuple[float, float]] = []
        for number in range(ROUNDS + 1):
            progress(f"one event to {STREAMS} streams, round {number} of {ROUNDS}")
            found.append((_publish(project, ours), _publish(bare, theirs)))
    cost, baseline = (median(values) * 1e6 for values in zip(*found[1:], strict=True))
    ratio = median(project / bare for project, bare in found[1:])
    return [
        Row(
            name=f"one event to {STREAMS} streams",
            unit="x",
            value=ratio,
            reach=0.95,
            project=cost,
            baseline=baseline,
            detail="µs of CPU a stream",
        )
    ]


def _publish(server: Server, streams: Streams) -> float:
    before = server.usage().cpu
    for _ in range(EVENTS):
        server.ask("POST", "/-/publish")
        streams.expect(MARKER)
    return (server.usage().cpu - before) / EVENTS / STREAMS
