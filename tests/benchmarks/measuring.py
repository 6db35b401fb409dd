"""What measuring costs: the metrics of a validation, kept and sent, as a part of it and of the whole request."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from statistics import median

from tests.benchmarks.load import interleaved, running, statsd
from tests.benchmarks.rows import Row
from tests.parts import mongod
from tornado_sse_auth import Metrics, Observations, StatsDMetrics

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
