"""What this process sees of the replica set that it talks to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

from pymongo.errors import OperationFailure
from pymongo.read_preferences import ReadPreference

from .calls import Database, bounded

__all__ = ["ReplicaSetView", "view_replica_set"]

UNAUTHORIZED = 13
HEALTHY_STATES = frozenset({1, 2, 7})  # PRIMARY, SECONDARY, ARBITER


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaSetView:
    """`members`: how many are configured. `majority_lag`: seconds by which what a majority has is behind the newest
    write. The other figures need the role `clusterMonitor` and are None without it: `healthy`, members that work;
    `slowest_lag`, seconds by which the slowest of them is behind; connections of the server asked, in use and left."""

    members: int
    primary: bool
    majority_lag: float
    healthy: int | None = None
    slowest_lag: float | None = None
    connections: int | None = None
    connections_left: int | None = None


async def view_replica_set(database: Database) -> ReplicaSetView | None:
    """As the nearest member tells it, which may be the last one; None where there is no replica set (a mongos).

    Raises `StoreUnavailableError`.
    """
    with bounded():
        hello = await _command(cast(Any, database), "hello")
        if "setName" not in hello:
            return None
        admin = cast(Any, database).client["admin"]
        status = await _permitted(admin, "replSetGetStatus")
        server = await _permitted(admin, "serverStatus", repl=0, metrics=0, locks=0, wiredTiger=0)
    return read_view(hello, status, server)


def read_view(hello: dict[str, Any], status: dict[str, Any] | None, server: dict[str, Any] | None) -> ReplicaSetView:
    """The view that these three answers give. Pure."""
    wrote = hello.get("lastWrite", {})
    newest, majority = wrote.get("lastWriteDate"), wrote.get("majorityWriteDate")
    lag = (newest - majority).total_seconds() if newest is not None and majority is not None else 0.0
    healthy = slowest = None
    if status is not None:
        working = [member for member in status["members"] if member.get("state") in HEALTHY_STATES]
        times = [member["optimeDate"] for member in working if member.get("optimeDate") is not None]
        healthy = len(working)
        slowest = (max(times) - min(times)).total_seconds() if times else None
    connections = (server or {}).get("connections", {})
    return ReplicaSetView(
        members=len(hello.get("hosts", ())) + len(hello.get("passives", ())) + len(hello.get("arbiters", ())),
        primary="primary" in hello,
        majority_lag=max(0.0, lag),
        healthy=healthy,
        slowest_lag=slowest,
        connections=connections.get("current"),
        connections_left=connections.get("available"),
    )


async def _command(database: Any, name: str, **options: Any) -> dict[str, Any]:
    answer: dict[str, Any] = await database.command(name, read_preference=ReadPreference.NEAREST, **options)
    return answer


async def _permitted(database: Any, name: str, **options: Any) -> dict[str, Any] | None:
    try:
        return await _command(database, name, **options)
    except OperationFailure as error:
        if error.code == UNAUTHORIZED:
            return None
        raise
