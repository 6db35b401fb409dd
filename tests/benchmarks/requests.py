"""What authentication costs a request: CPU of the server, so that neither client nor neighbours count."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from statistics import median

from tests.benchmarks.load import Server, interleaved, running, statsd
from tests.benchmarks.progress import progress
from tests.benchmarks.rows import Row
from tests.parts import mongod

Start = Callable[[], AbstractContextManager[Server]]

PAIRS = 7
ROUNDS = 5
REQUESTS = 500
CONNECTIONS = 32  # each with a session of its own, where MongoDB is asked


def cached() -> list[Row]:
    """The session in the cache, against a handler without authentication."""
    with statsd() as port:
        return [
            _row(
                "authenticated GET, session in the cache",
                0.90,
                _pairs(lambda: running("cached", statsd=port), lambda: running("bare")),
            )
        ]


def uncached() -> list[Row]:
    """MongoDB asked each time, against a `prepare()` by hand with one Motor `find_one`."""
    with mongod.shared() as servers, statsd() as port:
        at = {"mongo": servers.uri, "database": "benchmarks", "sessions": CONNECTIONS}
        try:
            return [
                _row(
                    f"the same, MongoDB asked each time, {driver}",
                    reach,
                    _pairs(
                        partial(running, f"uncached_{driver.lower()}", statsd=port, **at),
                        partial(running, "by_hand", **at),
                        concurrency=CONNECTIONS,
                    ),
                )
                for driver, reach in (("Motor", 0.95), ("PyMongo", 1.2))
            ]
        finally:
            mongod.drop_database(servers.uri, "benchmarks")


def _pairs(project: Start, baseline: Start, *, concurrency: int = 8) -> list[tuple[float, float]]:
    """CPU seconds a request, of us and of the other, round by round. Two processes of the same program differ by a
    tenth, by how their memory happens to lie: so there are several pairs."""
    found: list[tuple[float, float]] = []
    for number in range(PAIRS):
        progress(f"pair {number + 1} of {PAIRS}")
        with project() as ours, baseline() as theirs:
            found += zip(*interleaved((ours, theirs), REQUESTS, ROUNDS, concurrency), strict=True)
    return found


def _row(name: str, reach: float, pairs: list[tuple[float, float]]) -> Row:
    project, baseline = (median(costs) for costs in zip(*pairs, strict=True))
    ratios = [theirs / ours for ours, theirs in pairs]  # of neighbours in time: who else uses the machine, slows both
    return Row(
        name=name,
        unit="x",
        value=median(ratios),
        reach=reach,
        at_least=True,
        project=project * 1e6,
        baseline=baseline * 1e6,
        detail="µs of CPU a request",
    )
