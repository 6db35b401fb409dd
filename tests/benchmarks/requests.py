"""What authentication costs a request: CPU of the server, so that neither client nor neighbours count."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from statistics import median

from tests.benchmarks.load import Server, interleaved, running, statsd
from tests.benchmarks.rows import Row
from tests.parts import mongod

Start = Callable[[], AbstractContextManager[Server]]

PAIRS = 7
ROUNDS = 3
REQUESTS = 1000


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
        at = {"mongo": servers.uri, "database": "benchmarks"}
        try:
            return [
                _row(
                    f"the same, MongoDB asked each time, {driver}",
                    reach,
                    _pairs(
                        partial(running, f"uncached_{driver.lower()}", statsd=port, **at),
                        partial(running, "by_hand", **at),
                    ),
                )
                for driver, reach in (("Motor", 0.95), ("PyMongo", 1.2))
            ]
        finally:
            mongod.drop_database(servers.uri, "benchmarks")


def _pairs(project: Start, baseline: Start) -> list[tuple[float, float]]:
    """CPU seconds a request. Two processes of the same program differ by a tenth, by how their memory happens to lie:
    so there are several pairs."""
    found = []
    for _ in range(PAIRS):
        with project() as ours, baseline() as theirs:
            cost, reference = map(median, interleaved((ours, theirs), REQUESTS, ROUNDS))
            found.append((cost, reference))
    return found


def _row(name: str, reach: float, pairs: list[tuple[float, float]]) -> Row:
    project, baseline = (median(costs) for costs in zip(*pairs, strict=True))
    return Row(
        name=name,
        unit="x",
        value=baseline / project,
        reach=reach,
        at_least=True,
        project=project * 1e6,
        baseline=baseline * 1e6,
        detail="µs of CPU a request",
    )
