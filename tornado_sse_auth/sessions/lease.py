"""The lease by which one process alone may send a session's refresh: held by this process, or watched by it."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

from ..clock import Clock
from ..errors import StoreUnavailableError
from ..identity import RefreshState, Session
from ..stores.base import Lease, SessionStore

__all__ = ["LEASE_LENGTH", "LEASE_RENEWAL", "HeldLease", "LeaseBusy", "LeaseTerm", "LeaseWatch", "unsent"]

_log = logging.getLogger(__name__)

LEASE_LENGTH = 15.0
LEASE_RENEWAL = 5.0
RENEWED_AGAIN_AFTER = 1.0  # seconds, where the store did not answer


class LeaseBusy(Exception):  # noqa: N818 - not an error: somebody else is at it
    """Another process is refreshing this session, or has died while doing so: look again in a moment."""


@dataclass(frozen=True, slots=True)
class LeaseTerm:
    """Until when a lease is certainly ours. It counts from before the store was asked, by both clocks: the monotonic
    one stands still while the machine sleeps, the wall clock may be set."""

    monotonic: float
    wall: float

    @classmethod
    def from_now(cls, clock: Clock) -> LeaseTerm:
        """What a lease that is asked for now is good for."""
        return cls(clock.monotonic() + LEASE_LENGTH, clock.time() + LEASE_LENGTH)

    def is_over(self, clock: Clock) -> bool:
        """Whether another process may have the lease by now."""
        return clock.monotonic() >= self.monotonic or clock.time() >= self.wall


def unsent(state: RefreshState) -> RefreshState:
    """What is written when a lease is given back under which nothing was sent."""
    presented = state.presented - 1
    return replace(state, owner=None, until=0.0, presented=presented, intent=state.intent if presented else None)


class HeldLease:
    """A lease that the store has given us. It is renewed inside its block. `sent_at`: when the refresh token went out
    under it, epoch seconds."""

    def __init__(self, store: SessionStore, lease: Lease, term: LeaseTerm, clock: Clock) -> None:
        self.lease = lease
        self.sent_at: float | None = None
        self._store = store
        self._term = term
        self._clock = clock
        self._renewal: asyncio.Task[None] | None = None

    def before_sending(self) -> None:
        """The last thing before the first byte. Raises `LeaseBusy` unless the lease is certainly ours still: whoever
        stood still for too long must not send, for a successor may have."""
        if self._term.is_over(self._clock):
            raise LeaseBusy
        self.sent_at = self._clock.time()

    async def __aenter__(self) -> Self:
        self._renewal = asyncio.create_task(self._renew(), name=f"lease of session {self.lease.session.id}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._renewal is not None:
            self._renewal.cancel()

    async def _renew(self) -> None:
        session_id = self.lease.session.id
        pause = LEASE_RENEWAL
        while True:
            await asyncio.sleep(pause)
            term = LeaseTerm.from_now(self._clock)
            try:
                if not await self._store.renew_lease(session_id, self.lease.fence, LEASE_LENGTH):
                    _log.warning("the lease of session %s was taken over", session_id)
                    return
                self._term, pause = term, LEASE_RENEWAL
            except StoreUnavailableError as error:
                _log.warning("the lease of session %s was not renewed: %s", session_id, error)
                pause = min(LEASE_RENEWAL, RENEWED_AGAIN_AFTER)


@dataclass(slots=True)
class _Watched:
    """An expired lease whose holder has not come back: which one, since when it was seen, and when last (monotonic)."""

    fence: int
    until: float
    since: float
    looked: float


class LeaseWatch:
    """Expired leases of others, each of which must stand unchanged for one more lease length, while the store answers,
    before what its holder spent is presented again.

    `longest_blink`: seconds without a look after which a watch has seen nothing: the store may have been away for all.
    """

    def __init__(self, longest_blink: float, clock: Clock) -> None:
        self._longest_blink = longest_blink
        self._clock = clock
        self._watched: dict[str, _Watched] = {}

    def __len__(self) -> int:
        return len(self._watched)

    def look(self, row: Session) -> bool:
        """Note that the lease on this row has expired; True when that has lasted long enough."""
        now = self._clock.monotonic()
        lease = row.refresh
        watched = self._watched.get(row.id)
        if (
            watched is None
            or (watched.fence, watched.until) != (lease.fence, lease.until)
            or now - watched.looked > self._longest_blink
        ):
            self._forget_unlooked(now)
            self._watched[row.id] = watched = _Watched(lease.fence, lease.until, now, now)
        watched.looked = now
        return self._is_over(watched)

    def seen(self, session_id: str) -> int | None:
        """The fence of the session's lease where that was watched for long enough, else None."""
        watched = self._watched.get(session_id)
        return watched.fence if watched is not None and self._is_over(watched) else None

    def forget(self, session_id: str) -> None:
        """The row has changed, or its session is gone."""
        self._watched.pop(session_id, None)

    def forget_all(self) -> None:
        """The store did not answer: whoever holds a lease may have written in vain meanwhile."""
        self._watched.clear()

    def _forget_unlooked(self, now: float) -> None:
        """Sessions that nobody wants refreshed any more."""
        for session_id in [name for name, old in self._watched.items() if now - old.looked > self._longest_blink]:
            del self._watched[session_id]

    def _is_over(self, watched: _Watched) -> bool:
        now = self._clock.monotonic()
        return now - watched.since >= LEASE_LENGTH and now - watched.looked <= self._longest_blink
