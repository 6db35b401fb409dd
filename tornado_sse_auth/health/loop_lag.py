"""How late the event loop is: what a timer sees that should have come earlier."""

from __future__ import annotations

from collections import deque

from ..clock import Clock
from ..periodic import MonotonicPeriodicCallback

__all__ = ["LoopLag"]

PERIOD = 0.25
KEPT = 60.0
ENOUGH = 40


class LoopLag:
    """Wakes four times a second and keeps, for a minute, by how much each time was late."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._seen: deque[tuple[float, float]] = deque(maxlen=int(KEPT / PERIOD))
        self._woke = clock.monotonic()
        self._periodic = MonotonicPeriodicCallback(self._wake, PERIOD * 1000)

    def start(self) -> None:
        """Begin to watch."""
        self._woke = self._clock.monotonic()
        self._periodic.start()

    def close(self) -> None:
        """Stop. Twice is once."""
        self._periodic.stop()

    def worst(self, seconds: float) -> float:
        """The longest delay of the last `seconds`, in seconds."""
        after = self._clock.monotonic() - seconds
        return max((lag for when, lag in self._seen if when >= after), default=0.0)

    def percentile(self, part: float) -> float:
        """The delay below which `part` (0 to 1) of the last minute lies, in seconds; 0 in the first ten seconds, when
        what is started once would count too much."""
        delays = sorted(lag for _, lag in self._seen)
        return delays[min(len(delays) - 1, int(part * len(delays)))] if len(delays) >= ENOUGH else 0.0

    def _wake(self) -> None:
        now = self._clock.monotonic()
        self._seen.append((now, max(0.0, now - self._woke - PERIOD)))
        self._woke = now
