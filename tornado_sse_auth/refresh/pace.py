"""How soon after one background refresh the next may start."""

from __future__ import annotations

__all__ = ["Pace"]

SHORTEST = 0.005  # seconds between two starts
LONGEST = 0.2
ON_TIME = 0.002  # seconds by which a timer of an idle loop may come late
SLOWER, FASTER = 1.25, 0.99  # as long as fewer than one timer in twenty is late, the gap shrinks


class Pace:
    """Requests come first: the later the loop's timers are, the longer the gap between two starts.

    A machine that is busy with refreshes alone makes its timers late; a few steps later it has room for requests.
    """

    __slots__ = ("gap",)

    def __init__(self) -> None:
        self.gap = SHORTEST

    def note(self, lateness: float) -> None:
        """A timer came `lateness` seconds after its time."""
        self.gap = min(LONGEST, self.gap * SLOWER) if lateness > ON_TIME else max(SHORTEST, self.gap * FASTER)
