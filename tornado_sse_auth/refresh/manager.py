"""The owner of the background refresh: knows which sessions have open streams and has each refreshed in time."""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from ..clock import Clock
from ..deadlines import Deadlines
from ..errors import InvalidTokenError, ReauthorizationRequiredError, StoreUnavailableError
from ..identity import Session
from ..options import Options
from ..periodic import MonotonicPeriodicCallback
from ..sessions.manager import SessionManager
from ..sessions.token_refresh import LeaseBusy, RefreshPostponed, TokenRefresher
from .pace import Pace
from .schedule import refresh_due_at

__all__ = ["RefreshManager"]

_log = logging.getLogger(__name__)

CLOCK_JUMP = 2.0  # seconds between wall and monotonic clock within one tick
SPREAD = 30.0  # seconds over which what is overdue after such a jump is spread
AFTER_ERROR = 5.0
MOST_LEEWAY = 90.0  # seconds for which a refresh gives way to requests


@dataclass(slots=True)
class _Known:
    """A session with open streams: the token version that is planned; on the wall clock its due time, and until when
    its refresh may give way to requests."""

    token_version: int
    due_wall: float | None = None
    latest_wall: float = 0.0

    def leeway(self, wall: float) -> float:
        """How far it may give way at that time: 1 when it has just fallen due, 0 at the latest."""
        if self.due_wall is None or self.latest_wall <= self.due_wall:
            return 0.0
        return min(1.0, max(0.0, (self.latest_wall - wall) / (self.latest_wall - self.due_wall)))


@dataclass(frozen=True, slots=True)
class _Failing:
    """A session whose refresh has failed and not succeeded since: the class of the newest failure, and since when
    (monotonic)."""

    kind: str
    since: float


class RefreshManager:
    """A tick, each `refresh_interval` seconds, sees to what falls due before the next one. Each refresh is started at
    its own time, one after the other and the slower the busier the loop is, until half of the time is gone that its
    token then has left: requests come first. At most `refresh_concurrency` run, and none is awaited. A tick costs in
    proportion to what is due.

    `refresher` is None where there is no provider: sessions with open streams are then only kept from idling out.
    """

    def __init__(
        self, refresher: TokenRefresher | None, sessions: SessionManager, options: Options, *, clock: Clock
    ) -> None:
        self._refresher = refresher
        self._sessions = sessions
        self._options = options
        self._clock = clock
        self._known: dict[str, _Known] = {}
        self._refreshes: Deadlines[str] = Deadlines()  # monotonic
        self._touches: Deadlines[str] = Deadlines()  # monotonic
        self._touch_interval = min(3600.0, options.idle_ttl / 20)
        self._ready: deque[tuple[str, Callable[[str], Awaitable[None]]]] = deque()
        self._running: set[asyncio.Task[None]] = set()
        self._refreshing: set[str] = set()
        self._failing: dict[str, _Failing] = {}
        self._periodic: MonotonicPeriodicCallback | None = None
        self._pace = Pace()
        self._next: asyncio.TimerHandle | None = None
        self._next_tick = self._last_start = -math.inf  # monotonic
        self._offset = clock.time() - clock.monotonic()
        self._closed = False
        self.lag = 0.0

    @property
    def scheduled(self) -> int:
        """How many sessions are in the schedule."""
        return len(self._refreshes)

    @property
    def overdue(self) -> float:
        """Seconds by which the most overdue refresh is late now; 0 when none is."""
        due = self._refreshes.earliest
        return 0.0 if due is None else max(0.0, self._clock.monotonic() - due)

    def due_by_minute(self, minutes: int) -> list[int]:
        """How many sessions are due in each of the next `minutes` minutes; what is overdue counts as the first. Costs
        in proportion to all that is scheduled, so ask for people's eyes only."""
        counts = [0] * minutes
        now = self._clock.monotonic()
        for when in self._refreshes.times():
            minute = max(0, int((when - now) // 60))
            if minute < minutes:
                counts[minute] += 1
        return counts

    @property
    def failing(self) -> dict[str, int]:
        """Sessions whose last refresh failed, by the class of failure: `transient`, `client` (the provider does not
        accept this server), `store`, `internal`."""
        return dict(Counter(failing.kind for failing in self._failing.values()))

    @property
    def longest_failing(self) -> float:
        """Seconds for which the refresh of one of them has been failing, at most; 0 when none is."""
        since = min((failing.since for failing in self._failing.values()), default=None)
        return 0.0 if since is None else self._clock.monotonic() - since

    def start(self) -> None:
        """Begin to tick."""
        self._closed = False
        self._periodic = MonotonicPeriodicCallback(self.tick, self._options.refresh_interval * 1000)
        self._periodic.start()

    async def close(self) -> None:
        """Stop ticking and end what waits; refreshes under way belong to the refresher. Twice is once."""
        self._closed = True
        if self._periodic is not None:
            self._periodic.stop()
            self._periodic = None
        self._forget_next()
        self._ready.clear()
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        self._refreshing.clear()

    # -- what the schedule follows ---------------------------------------------------------------------------------

    def stream_opened(self, session: Session) -> None:
        """The session's first stream in this process is open."""
        self._known[session.id] = _Known(session.token_version)
        self._plan(session)
        self._touches.set(session.id, self._clock.monotonic() + self._touch_interval * random.uniform(0.9, 1.0))  # noqa: S311

    def streams_closed(self, session_id: str) -> None:
        """The session's last stream in this process is gone: nothing is done for it any more."""
        self._known.pop(session_id, None)
        self._failing.pop(session_id, None)
        self._refreshes.discard(session_id)
        self._touches.discard(session_id)

    def session_changed(self, session: Session) -> None:
        """Plan anew from the newest version, if the session has open streams here."""
        if session.id in self._known:
            self._plan(session)

    def session_ended(self, session_id: str, reason: str) -> None:
        """Nothing is to be refreshed any more."""
        self.streams_closed(session_id)

    def _plan(self, session: Session) -> None:
        if self._refresher is None:
            return
        known = self._known[session.id]
        if known.token_version != session.token_version:
            self._failing.pop(session.id, None)
        known.token_version = session.token_version
        known.due_wall = refresh_due_at(
            session,
            fraction=self._options.refresh_fraction,
            random=random.random(),  # noqa: S311
            now=self._clock.time(),
        )
        if known.due_wall is not None and session.token_set is not None:
            half = (session.token_set.expires_at - known.due_wall) / 2
            known.latest_wall = known.due_wall + min(MOST_LEEWAY, half)
        if known.due_wall is None:
            self._refreshes.discard(session.id)
        elif session.id not in self._refreshing:
            self._set(session.id, known.due_wall)

    def _set(self, session_id: str, due_wall: float) -> None:
        self._refreshes.set(session_id, self._clock.monotonic() + max(0.0, due_wall - self._clock.time()))

    # -- the tick --------------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Start what is due, and plan for what falls due before the next tick. Called by the periodic callback; tests
        call it by hand."""
        self._follow_clock()
        now = self._clock.monotonic()
        self.lag = 0.0
        for session_id in self._touches.due(now):
            self._ready.append((session_id, self._touch))
        self._pump()
        self._next_tick = now + self._options.refresh_interval
        self._start_due(now)

    def _start_due(self, now: float) -> None:
        self._forget_next()
        wall = self._clock.time()
        while (first := self._refreshes.first) is not None and not self._closed:
            due, session_id = first
            known = self._known[session_id]
            when = max(due, self._last_start + self._pace.gap * known.leeway(wall))
            if when > now:
                if when <= self._next_tick:
                    self._wake_at(when, now)
                return
            self._refreshes.discard(session_id)
            self._last_start = now
            self._start(session_id, 0.0 if known.due_wall is None else wall - known.due_wall)

    def _wake_at(self, when: float, now: float) -> None:
        loop = asyncio.get_running_loop()
        self._next = loop.call_later(when - now, self._woken, when, loop.time() + when - now)

    def _woken(self, when: float, loop_time: float) -> None:
        self._pace.note(asyncio.get_running_loop().time() - loop_time)
        self._start_due(max(when, self._clock.monotonic()))

    def _start(self, session_id: str, lag: float) -> None:
        self.lag = max(self.lag, lag)
        if session_id not in self._refreshing:
            self._refreshing.add(session_id)
            self._ready.append((session_id, self._refresh))
            self._pump()

    def _forget_next(self) -> None:
        if self._next is not None:
            self._next.cancel()
            self._next = None

    def _follow_clock(self) -> None:
        """A wall clock that jumped ahead (a machine that slept) may have taken tokens past their end: what is due by
        it is due now, spread a little. One that jumped back changes nothing: due times are monotonic."""
        offset = self._clock.time() - self._clock.monotonic()
        jumped, self._offset = offset - self._offset, offset
        if jumped < CLOCK_JUMP:
            return
        _log.warning("the wall clock jumped ahead by %.0f s; %d sessions are planned anew", jumped, len(self._known))
        now, wall = self._clock.monotonic(), self._clock.time()
        for session_id, known in self._known.items():
            planned = self._refreshes.when(session_id)
            if known.due_wall is None or planned is None:
                continue
            left = known.due_wall - wall
            self._refreshes.set(session_id, min(planned, now + (left if left > 0 else random.uniform(0, SPREAD))))  # noqa: S311

    def _pump(self) -> None:
        while self._ready and len(self._running) < self._options.refresh_concurrency and not self._closed:
            session_id, work = self._ready.popleft()
            task = asyncio.ensure_future(work(session_id))
            self._running.add(task)
            task.add_done_callback(self._done)

    def _done(self, task: asyncio.Future[None]) -> None:
        self._running.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _log.error("a background refresh failed", exc_info=task.exception())
        self._pump()

    async def _refresh(self, session_id: str) -> None:
        assert self._refresher is not None  # noqa: S101 - nothing is planned without one
        again: float | None = AFTER_ERROR
        failure: str | None = "internal"
        known = self._known.get(session_id)
        attempted = known.token_version if known is not None else None
        try:
            if attempted is not None:
                session = await self._refresher.attempt(session_id, attempted)
                self.session_changed(session)
            failure = None
        except LeaseBusy:
            failure = self._failing[session_id].kind if session_id in self._failing else None
            again = random.uniform(0.2, 1.0)  # noqa: S311
        except RefreshPostponed as postponed:
            failure = postponed.failure
            again = max(0.0, postponed.until - self._clock.time()) + random.uniform(0.0, 1.0)  # noqa: S311
        except StoreUnavailableError as error:
            _log.warning("refresh of session %s waits for the store: %s", session_id, error)
            failure = "store"
            again = random.uniform(1.0, 2.0)  # noqa: S311
        except (InvalidTokenError, ReauthorizationRequiredError):
            failure = None
            again = None  # whoever found that out has told the listeners, or the change feed will
        finally:
            self._refreshing.discard(session_id)
            self._note(session_id, failure)
            self._plan_again(session_id, attempted, again)

    def _note(self, session_id: str, failure: str | None) -> None:
        before = self._failing.pop(session_id, None)
        if failure is None or session_id not in self._known:
            return
        # The row says only that an attempt failed; who was told more remembers it.
        kind = "client" if before is not None and before.kind == "client" and failure == "transient" else failure
        self._failing[session_id] = _Failing(kind, self._clock.monotonic() if before is None else before.since)

    def _plan_again(self, session_id: str, attempted: int | None, again: float | None) -> None:
        known = self._known.get(session_id)
        if known is None or known.due_wall is None:
            return
        if known.token_version != attempted:  # a newer token set came meanwhile, from here or from elsewhere
            self._set(session_id, known.due_wall)
        elif again is not None:
            self._refreshes.set(session_id, self._clock.monotonic() + again)

    async def _touch(self, session_id: str) -> None:
        again = self._touch_interval
        try:
            session = await self._sessions.touch(session_id)
            if session is not None:
                self._sessions.watch.changed(session)
        except StoreUnavailableError:
            again = random.uniform(1.0, 5.0)  # noqa: S311
        finally:
            if session_id in self._known:
                self._touches.set(session_id, self._clock.monotonic() + again)
