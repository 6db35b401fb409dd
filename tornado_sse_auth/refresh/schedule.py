"""When is which session due? A pure heap: every method takes the time."""

from __future__ import annotations

import heapq
from collections.abc import Iterator

from ..identity import Session, SessionState

__all__ = ["Schedule", "refresh_due_at"]

JITTER = 0.05


def refresh_due_at(session: Session, *, fraction: float, random: float) -> float | None:
    """Wall-clock time (epoch seconds) of the session's next refresh, or None when nothing is to be refreshed.

    It follows from the token's life alone: at `fraction` of it, up to 5 % of the life earlier by `random` (0 to 1).
    After a failure not before the row's `not_before`. Without a refresh token: at expiry, when the user is needed.
    """
    token_set = session.token_set
    if token_set is None or session.state is not SessionState.ACTIVE:
        return None
    if token_set.refresh_token is None:
        return token_set.expires_at
    due = token_set.issued_at + token_set.lifetime * (fraction - JITTER * random)
    return max(due, session.refresh.not_before)


class Schedule:
    """Keys with monotonic due times. `set` and `remove` cost O(log n), `due` in proportion to what is due.

    An entry that was replaced or removed stays in the heap until it surfaces, or until such entries outnumber the
    live ones.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, str]] = []
        self._live: dict[str, tuple[float, int]] = {}
        self._count = 0

    def __len__(self) -> int:
        return len(self._live)

    def __contains__(self, key: str) -> bool:
        return key in self._live

    def __iter__(self) -> Iterator[str]:
        return iter(self._live)

    @property
    def next_due(self) -> float | None:
        """The earliest due time."""
        self._drop_stale_head()
        return self._heap[0][0] if self._heap else None

    def due_time(self, key: str) -> float | None:
        """When `key` is due, or None."""
        entry = self._live.get(key)
        return entry and entry[0]

    def set(self, key: str, due: float) -> None:
        """Make `key` due at `due`, whatever it was before."""
        self._count += 1
        self._live[key] = (due, self._count)
        heapq.heappush(self._heap, (due, self._count, key))
        self._compact()

    def remove(self, key: str) -> None:
        """Forget `key`; nothing happens when it is not there."""
        self._live.pop(key, None)
        self._compact()

    def due(self, until: float) -> list[tuple[float, str]]:
        """Take out everything due at or before `until`: pairs of due time and key, in order."""
        taken = []
        while self._heap and self._heap[0][0] <= until:
            due, count, key = heapq.heappop(self._heap)
            if self._live.get(key) == (due, count):
                del self._live[key]
                taken.append((due, key))
        return taken

    def _compact(self) -> None:
        if len(self._heap) > 2 * len(self._live) + 64:
            self._heap = [(due, count, key) for key, (due, count) in self._live.items()]
            heapq.heapify(self._heap)

    def _drop_stale_head(self) -> None:
        while self._heap and self._live.get(self._heap[0][2]) != self._heap[0][:2]:
            heapq.heappop(self._heap)
