"""What every use of MongoDB has in common: bounded calls, one class of failure, a change stream that is kept open."""

from .calls import (
    Database,
    bounded,
    collection,
    find_one,
    make_indexes,
    require_replica_set,
    settled,
    starting,
    undisturbed,
    undisturbed_for,
)
from .feed import ChangeFeed
from .look_ups import LookUps
from .primary import Primary
from .replica_set import ReplicaSetView, view_replica_set

__all__ = [
    "ChangeFeed",
    "Database",
    "LookUps",
    "Primary",
    "ReplicaSetView",
    "bounded",
    "collection",
    "find_one",
    "make_indexes",
    "require_replica_set",
    "settled",
    "starting",
    "undisturbed",
    "undisturbed_for",
    "view_replica_set",
]
