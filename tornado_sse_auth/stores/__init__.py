"""Session stores."""

from .base import (
    ChangeKind,
    ChangeListener,
    KeptRecord,
    KeptRecords,
    Lease,
    LeaseRefused,
    SealingKeys,
    SessionChange,
    SessionStore,
    SingleUseRecords,
    Trimmed,
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
    "SealingKeys",
    "SessionChange",
    "SessionStore",
    "SingleUseRecords",
    "Trimmed",
    "VersionConflict",
]
