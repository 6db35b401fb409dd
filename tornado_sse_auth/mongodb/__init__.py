"""What every use of MongoDB has in common: bounded calls, one class of failure, a change stream that is kept open."""

from .calls import Database, bounded, collection, find_one, require_replica_set, settled, starting
from .feed import ChangeFeed

__all__ = ["ChangeFeed", "Database", "bounded", "collection", "find_one", "require_replica_set", "settled", "starting"]
