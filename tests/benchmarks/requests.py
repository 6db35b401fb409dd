"""What authentication costs a request: CPU of the server, so that neither client nor neighbours count."""

from __future__ import annotations

from statistics import median

from tests.benchmarks.load import Server, interleaved, running, statsd
from tests.benchmarks.rows import Row
from tests.parts import mongod

ROUNDS = 9
REQUESTS = 2000


def cached() -> list[Row]:
    """The session in the cache, against a handler without authentication."""
    with statsd() as port, running("bare") as bare, running("cached", statsd=port) as protected:
        return [_compare("authenticated GET, session in the cache", 0.90, protected, bare)]


def uncached() -> list[Row]:
    """MongoDB asked each time, against a `prepare()` by hand with one Motor `find_one`."""
    with mongod.shared() as servers, statsd() as port:
        at = {"mongo": servers.uri, "database": "benchmarks"}
        try:
            with (
                running("by_hand", **at) as by_hand,
                running("uncached_motor", statsd=port, **at) as motor,
                running("uncached_pymongo", statsd=port, **at) as pymongo,
            ):
                return [
                    _compare("the same, MongoDB asked each time, Motor", 0.95, motor, by_hand),
                    _compare("the same, MongoDB asked each time, PyMongo", 1.2, pymongo, by_hand),
                ]
        finally:
            mongod.drop_database(servers.uri, "benchmarks")


def _compare(name: str, reach: float, project: Server, baseline: Server) -> Row:
    ours, theirs = map(median, interleaved((project, baseline), REQUESTS, ROUNDS))
    return Row(
        name=name,
        unit="x",
        value=theirs / ours,
        reach=reach,
        at_least=True,
        project=ours * 1e6,
        baseline=theirs * 1e6,
        detail="µs of CPU a request",
    )
