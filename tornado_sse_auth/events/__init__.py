"""Event logs."""

from .base import EventListener, EventLog, LogEvent, LogRange
from .memory import MemoryEventLog
from .mongo import MongoEventLog

__all__ = ["EventListener", "EventLog", "LogEvent", "LogRange", "MemoryEventLog", "MongoEventLog"]
