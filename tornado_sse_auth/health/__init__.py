"""Health: checks of the store, the provider and this process, as plain data."""

from .check import Check
from .checks import process_checks, provider_checks, store_checks
from .health import Health
from .loop_lag import LoopLag
from .report import Answer, Finding, Measurement, Report, Status, Trouble

__all__ = [
    "Answer",
    "Check",
    "Finding",
    "Health",
    "LoopLag",
    "Measurement",
    "Report",
    "Status",
    "Trouble",
    "process_checks",
    "provider_checks",
    "store_checks",
]
