"""What every use of MongoDB has in common: bounded calls, one class of failure, a change stream that is kept open."""

from .calls import Database, bounded, collection, find_one, require_replica_set, settled, starting
from .feed import ChangeFeed
from .look_ups import LookUps

__all__ = [
    "ChangeFeed",
    "Database",
    "LookUps",
    "bounded",
    "collection",
    "find_one",
    "require_replica_set",
    "settled",
    "starting",
]
