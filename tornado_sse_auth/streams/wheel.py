"""Who needs a heartbeat now. Pure: it is told the time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar

__all__ = ["HeartbeatWheel"]


class Beaten(Protocol):
    """A member: `slot` belongs to the wheel, `sent_at` is when it last sent anything (monotonic seconds)."""

    slot: int
    sent_at: float


M = TypeVar("M", bound=Beaten)


class HeartbeatWheel(Generic[M]):
    """Visits each member twice in a period and names those that have been silent for more than half of it: so nobody
    is silent for longer than a period, whoever sends anyway costs no heartbeat, and members stay spread over the
    period even after an event to all of them at once."""

    def __init__(self, period: float, tick: float) -> None:
        """`period`, `tick`: seconds. `turn` is called about each tick."""
        self._slots: list[set[M]] = [set() for _ in range(max(1, round(period / 2 / tick)))]
        self._half = period / 2
        self._step = self._half / len(self._slots)
        self._next_slot = 0
        self._hand = 0
        self._turned_at: float | None = None
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def add(self, member: M) -> None:
        """Begin to visit `member`, in the slot after the last newcomer's."""
        member.slot = self._next_slot
        self._next_slot = (self._next_slot + 1) % len(self._slots)
        self._slots[member.slot].add(member)
        self._size += 1

    def discard(self, member: M) -> None:
        """Visit `member` no more; nothing happens when it is not there."""
        slot = self._slots[member.slot]
        if member in slot:
            slot.remove(member)
            self._size -= 1

    def turn(self, now: float) -> Iterator[M]:
        """The silent ones among those whose turn has come since the last call. Members may leave meanwhile."""
        if self._turned_at is None:
            self._turned_at = now
            return
        steps = int((now - self._turned_at) / self._step)
        self._turned_at += steps * self._step
        # Half a tick of tolerance: a member that was beaten on its last visit but one must not miss this one.
        silent_since = now - self._half - self._step / 2
        for _ in range(min(steps, len(self._slots))):
            self._hand = (self._hand + 1) % len(self._slots)
            for member in tuple(self._slots[self._hand]):
                if member.sent_at < silent_since:
                    yield member
