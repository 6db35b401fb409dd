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

__all__ = [
    "ChangeKind",
    "ChangeListener",
    "Lease",
    "LeaseRefused",
    "MemorySessionStore",
    "SessionChange",
    "SessionStore",
    "SingleUseRecords",
    "VersionConflict",
]
