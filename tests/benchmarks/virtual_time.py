"""Ten minutes in a few seconds: an event loop on which time passes only while nobody has anything to do."""

from __future__ import annotations

import asyncio
import selectors
from typing import Any

__all__ = ["VirtualClock", "VirtualLoop"]

EPOCH = 1_700_000_000.0


class VirtualLoop(asyncio.SelectorEventLoop):
    """For what waits for nothing but time: an answer that is waited for at a socket would take for ever."""

    def __init__(self) -> None:
        self._now = 0.0
        super().__init__(_Idle(self))

    def time(self) -> float:
        """Seconds since the loop was made."""
        return self._now

    def pass_time(self, seconds: float) -> None:
        """Whoever waits for less is late, as after a blocking call or SIGSTOP."""
        self._now += seconds


class _Idle(selectors.DefaultSelector):  # type: ignore[misc,valid-type]
    """Where the loop would sleep, time passes instead."""

    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> Any:
        """What is ready now, and no time goes by; or nothing, and so many seconds have."""
        ready = super().select(0 if timeout is not None else None)
        if not ready and timeout:
            self._loop.pass_time(timeout)
        return ready


class VirtualClock:
    """A `Clock` by that loop. `off`: by how many seconds the wall clock is wrong."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self.off = 0.0

    def time(self) -> float:
        """Wall clock, seconds since the epoch."""
        return EPOCH + self._loop.time() + self.off

    def monotonic(self) -> float:
        """Seconds since the loop was made."""
        return self._loop.time()
