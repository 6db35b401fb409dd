"""Event logs."""

from .base import EventListener, EventLog, LogEvent, LogRange
from .memory import MemoryEventLog

__all__ = ["EventListener", "EventLog", "LogEvent", "LogRange", "MemoryEventLog"]
