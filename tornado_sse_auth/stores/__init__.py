"""Session stores."""

from .base import (
    ChangeKind,
    ChangeListener,
    KeptRecord,
    KeptRecords,
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
    "KeptRecord",
    "KeptRecords",
    "Lease",
    "LeaseRefused",
    "MemorySessionStore",
    "MongoSessionStore",
    "SessionChange",
    "SessionStore",
    "SingleUseRecords",
    "VersionConflict",
]
