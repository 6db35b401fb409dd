"""Time as an argument: the only module that asks the operating system for it."""

from __future__ import annotations

import time as system
from typing import Protocol

__all__ = ["Clock", "SystemClock"]


class Clock(Protocol):
    """Two readings: `time` may jump and is for what is stored, `monotonic` never does and is for what is awaited."""

    def time(self) -> float:
        """Wall clock, seconds since the epoch."""
        ...

    def monotonic(self) -> float:
        """Seconds from an arbitrary start; never goes back."""
        ...


class SystemClock:
    """The operating system's clocks, asked without a function of ours in between: a request asks six times."""

    time = staticmethod(system.time)
    monotonic = staticmethod(system.monotonic)
