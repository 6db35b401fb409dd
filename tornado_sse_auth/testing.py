"""For tests of applications: a clock that is moved by hand, and a sink that remembers what was measured."""

from __future__ import annotations

from collections import Counter

from .metrics import COUNTERS, GAUGES, TIMERS, Metrics, is_known

__all__ = ["ManualClock", "RecordingMetrics"]


class ManualClock:
    """A `Clock` that stands still until it is moved. `time`: where its wall clock begins, seconds since the epoch."""

    def __init__(self, time: float = 1_700_000_000.0) -> None:
        self._time = time
        self._monotonic = 1000.0

    def time(self) -> float:
        """Wall clock, seconds since the epoch."""
        return self._time

    def monotonic(self) -> float:
        """Seconds from an arbitrary start; never goes back."""
        return self._monotonic

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass. Raises `ValueError` below zero: see `jump`."""
        if seconds < 0:
            raise ValueError("time passes forwards; `jump` sets the wall clock back")
        self._time += seconds
        self._monotonic += seconds

    def jump(self, seconds: float) -> None:
        """Set the wall clock forwards or back, as an operator or NTP does; the monotonic clock does not notice."""
        self._time += seconds


class RecordingMetrics(Metrics):
    """Remembers. Raises `ValueError` for a name that the table does not have."""

    def __init__(self) -> None:
        self.timings: list[tuple[str, float]] = []
        self.counters: Counter[str] = Counter()
        self.gauges: dict[str, float] = {}
        self.closed = False

    def timer(self, name: str, seconds: float) -> None:
        """Appended to `timings`."""
        _check(name, TIMERS)
        self.timings.append((name, seconds))

    def increment(self, name: str, count: int = 1) -> None:
        """Added to `counters`."""
        _check(name, COUNTERS)
        self.counters[name] += count

    def gauge(self, name: str, value: float) -> None:
        """Set in `gauges`."""
        _check(name, GAUGES)
        if value < 0:
            raise ValueError("a gauge is not below zero")
        self.gauges[name] = value

    def close(self) -> None:
        """Sets `closed`."""
        self.closed = True


def _check(name: str, table: frozenset[str]) -> None:
    if not is_known(name, table):
        raise ValueError(f"{name!r} is not among the names of tornado_sse_auth.metrics")
