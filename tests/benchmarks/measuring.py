"""What measuring costs: the metrics of a validation, kept and sent, as a part of it and of the whole request."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from contextlib import nullcontext
from statistics import median
from unittest.mock import patch

from tests.benchmarks.load import interleaved, running, statsd
from tests.benchmarks.rows import Row, percentile
from tests.parts import mongod
from tornado_sse_auth import Metrics, NullMetrics, Observations, StatsDMetrics

ROUNDS = 9
REPEATS = 5000
REQUESTS = 1000


def from_the_cache(metrics: Metrics) -> None:
    """What a validation notes when the cache has the session."""
    metrics.timing("session.validate", 0.000_01, "session.validate.hit")


def from_the_store(metrics: Metrics) -> None:
    """What a validation notes when the store is asked."""
    metrics.increment("session.validate.miss")
    metrics.timing("store.lookup", 0.002)
    metrics.timing("session.validate", 0.002)


def measuring() -> list[Row]:
    """Both ways of a validation: what authentication adds to a request, so the CPU of one less that of a bare one."""
    with statsd() as port, mongod.shared() as servers:
        at = {"mongo": servers.uri, "database": "benchmark_measuring"}
        try:
            with (
                running("bare") as bare,
                running("cached", statsd=port) as cached,
                running("uncached_pymongo", statsd=port, **at) as uncached,
            ):
                unauthenticated, *requests = [
                    median(costs) for costs in interleaved((bare, cached, uncached), REQUESTS, ROUNDS)
                ]
        finally:
            mongod.drop_database(servers.uri, "benchmark_measuring")
        notes = [asyncio.run(_cost(port, note)) for note in (from_the_cache, from_the_store)]
    return [
        Row(
            name=f"part of {what} that its metrics take, {where}",
            unit="%",
            value=100 * cost / whole,
            reach=5,
            project=cost * 1e6,
            baseline=whole * 1e6,
            detail="µs of CPU: metrics, the whole",
        )
        for where, cost, request in zip(("session in the cache", "MongoDB asked"), notes, requests, strict=True)
        for what, whole in (("a validation", request - unauthenticated), ("an authenticated GET", request))
    ]


async def _cost(port: int, note: Callable[[Metrics], None]) -> float:
    """CPU seconds of one note, with its part in what is sent to StatsD."""
    metrics = Observations(StatsDMetrics("127.0.0.1", port))
    costs = []
    for _ in range(ROUNDS):
        await asyncio.sleep(2 * StatsDMetrics.DELAY)  # the last round's rest leaves before this one is timed
        begun = time.process_time()
        for _ in range(REPEATS):
            note(metrics)
        costs.append((time.process_time() - begun) / REPEATS)
    metrics.close()
    return median(costs)


def dead_statsd() -> list[Row]:
    """REL-31: what a validation waits for its metrics when nobody takes them, above what it waits without any."""
    with statsd() as port:
        pass  # from now on nobody listens there
    full = patch.object(socket.socket, "sendto", side_effect=BlockingIOError)
    rows = []
    for fault, host, circumstance in (
        ("nobody listens", "127.0.0.1", nullcontext()),
        ("the name is gone", "statsd.invalid", nullcontext()),
        ("the socket is full", "127.0.0.1", full),
    ):
        with circumstance:
            dead, without, dropped = asyncio.run(_waits(host, port))
        rows.append(
            Row(
                name=f"REL-31, {fault}: added to a validation, p99",
                unit="µs",
                value=percentile(dead, 99) - percentile(without, 99),
                reach=100,
                project=percentile(dead, 99),
                baseline=percentile(without, 99),
                detail=f"µs: with, without; {dropped} metrics dropped",
            )
        )
    return rows


async def _waits(host: str, port: int) -> tuple[list[float], list[float], int]:
    """Microseconds of each note with this target and without any, and how many metrics were dropped."""
    sink = StatsDMetrics(host, port)
    both: tuple[list[float], list[float]] = ([], [])
    for _ in range(ROUNDS):
        for metrics, waits in zip((Observations(sink), Observations(NullMetrics())), both, strict=True):
            for _ in range(REPEATS):
                begun = time.perf_counter()
                from_the_cache(metrics)
                waits.append((time.perf_counter() - begun) * 1e6)
            await asyncio.sleep(2 * StatsDMetrics.DELAY)
    sink.close()
    return *both, sink.dropped
