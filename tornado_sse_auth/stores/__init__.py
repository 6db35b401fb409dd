"""Session stores."""

from .base import (
    ChangeKind,
    ChangeListener,
    Lease,
    LeaseRefused,
    SessionChange,
    SessionStore,
    SingleUseRecords,
    VersionConflict,
)
from .memory import MemorySessionStore
from .mongo import MongoSessionStore

__all__ = [
    "ChangeKind",
    "ChangeListener",
    "Lease",
    "LeaseRefused",
    "MemorySessionStore",
    "MongoSessionStore",
    "SessionChange",
    "SessionStore",
    "SingleUseRecords",
    "VersionConflict",
]
