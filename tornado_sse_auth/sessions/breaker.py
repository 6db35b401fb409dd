"""A pause for the whole provider: when it asks for one, or fails again and again. Pure: every method takes the time."""

from __future__ import annotations

__all__ = ["ProviderBreaker"]

FAILURES_TO_OPEN = 5
FIRST_PAUSE = 1.0
LONGEST_PAUSE = 30.0


class ProviderBreaker:
    """Closed: calls pass. Open: none passes until the pause is over, then one on trial at a time until one succeeds.

    All times are monotonic seconds.
    """

    def __init__(self) -> None:
        self._failures = 0
        self._resume_at = 0.0
        self._asked_until = 0.0
        self._open = False
        self._trial = False

    def wait(self, now: float) -> float:
        """Seconds until a call may be tried; 0: now. While another call is on trial: a second."""
        if not self._open:
            return 0.0
        if now < self._resume_at:
            return self._resume_at - now
        return 1.0 if self._trial else 0.0

    def begin(self) -> None:
        """A call goes out."""
        if self._open:
            self._trial = True

    def abandoned(self) -> None:
        """The call that began was never sent, or ended without telling of the provider's health."""
        self._trial = False

    def answered(self, now: float) -> None:
        """The provider works. A pause that it asked for stays: the call may have passed its limit before others."""
        self._failures = 0
        self._trial = False
        self._open = now < self._asked_until
        self._resume_at = self._asked_until

    def failed(self, now: float, retry_after: float | None) -> None:
        """The provider failed; `retry_after` is the pause it asked for, in seconds."""
        self._failures += 1
        self._trial = False
        if retry_after is not None:
            self._asked_until = max(self._asked_until, now + retry_after)
        if retry_after is not None or self._failures >= FAILURES_TO_OPEN:
            pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** max(0, self._failures - FAILURES_TO_OPEN))
            self._open = True
            self._resume_at = max(self._resume_at, now + (pause if retry_after is None else retry_after))
