"""A `PeriodicCallback` that does not follow the wall clock."""

from __future__ import annotations

from tornado.ioloop import PeriodicCallback

__all__ = ["MonotonicPeriodicCallback"]


class MonotonicPeriodicCallback(PeriodicCallback):
    """Tornado's own plans its next call on `IOLoop.time()`, the wall clock, and stands still for as long as that goes
    back. This one waits its period after each call, on the loop's monotonic clock.

    The callback must not wait for anything: the next call comes after it returns.
    """

    def _schedule_next(self) -> None:
        if self._running:
            self._timeout = self.io_loop.call_later(self.callback_time / 1000, self._run)
