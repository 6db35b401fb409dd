"""The schedule and its owner, with a clock that is moved by hand and a refresher that only notes."""

from __future__ import annotations

import asyncio
import inspect
import random
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
from tornado.ioloop import IOLoop, PeriodicCallback

from tornado_sse_auth.deadlines import Deadlines
from tornado_sse_auth.errors import StoreUnavailableError
from tornado_sse_auth.identity import RefreshState, Secret, Session, SessionState, TokenSet
from tornado_sse_auth.options import Options
from tornado_sse_auth.periodic import MonotonicPeriodicCallback
from tornado_sse_auth.refresh.manager import SPREAD, RefreshManager
from tornado_sse_auth.refresh.pace import LONGEST, Pace
from tornado_sse_auth.refresh.schedule import refresh_due_at
from tornado_sse_auth.sessions.manager import SessionManager
from tornado_sse_auth.sessions.token_refresh import LeaseBusy, RefreshPostponed, TokenRefresher
from tornado_sse_auth.testing import ManualClock


def make_session(clock: ManualClock, name: str = "s", *, life: float = 100.0, version: int = 1, **more: Any) -> Session:
    now = clock.time()
    values: dict[str, Any] = {
        "token_set": TokenSet(
            access_token=Secret("a"), refresh_token=Secret("r"), issued_at=now, expires_at=now + life
        ),
        "token_version": version,
        **more,
    }
    return Session(
        id=name,
        user_id="u",
        created_at=now,
        last_seen=now,
        expires_at=now + 1e6,
        idle_expires_at=now + 1e6,
        **values,
    )


def test_due_times_come_from_the_token_alone() -> None:
    """At 0.9 of the life, up to 5 % earlier; not before the row says; at expiry without a refresh token."""
    clock = ManualClock()
    session = make_session(clock, life=100)
    now = clock.time()

    def due(session: Session, random: float = 0.0, now: float = now) -> float | None:
        return refresh_due_at(session, fraction=0.9, random=random, now=now)

    assert due(session) == pytest.approx(now + 90)
    assert due(session, random=1.0) == pytest.approx(now + 85)
    waiting = make_session(clock, refresh=RefreshState(not_before=now + 200))
    assert due(waiting) == pytest.approx(now + 200)
    assert due(make_session(clock, token_set=None)) is None
    ended = make_session(clock, state=SessionState.REAUTHORIZATION)
    assert due(ended) is None
    alone = TokenSet(access_token=Secret("a"), refresh_token=None, issued_at=now, expires_at=now + 100)
    assert due(make_session(clock, token_set=alone), random=1.0) == pytest.approx(now + 100)
    # REL-11: by a clock that went back an hour both would be due in an hour.
    assert due(session, now=now - 3600) == pytest.approx(now - 3600 + 100)
    assert due(waiting, now=now - 3600) == pytest.approx(now - 3600 + 100)


def test_deadlines_against_a_plain_model() -> None:
    """Set, replaced, removed and taken in random order; the heap stays bounded by what lives."""
    dice = random.Random(7)
    schedule: Deadlines[str] = Deadlines()
    model: dict[str, float] = {}
    now = 0.0
    for _ in range(20_000):
        key = f"k{dice.randrange(50)}"
        action = dice.random()
        if action < 0.6:
            model[key] = now + dice.uniform(0, 100)
            schedule.set(key, model[key])
        elif action < 0.8:
            model.pop(key, None)
            schedule.discard(key)
        else:
            now += dice.uniform(0, 3)
            due = sorted((at, name) for name, at in model.items() if at <= now)
            assert schedule.due(now) == [name for _, name in due]
            for _, name in due:
                del model[name]
        assert len(schedule) == len(model)
        assert schedule.earliest == min(model.values(), default=None)
        assert len(schedule._heap) <= 2 * len(model) + 66


class NotedRefresher:
    """Stands in for the refresher: what is asked of it is the schedule's doing, what it answers is the test's."""

    def __init__(self) -> None:
        self.attempts: list[tuple[str, int]] = []
        self.running = 0
        self.most_running = 0
        self.answers: dict[str, Session | Exception] = {}
        self.gate = asyncio.Event()
        self.gate.set()

    async def attempt(self, session_id: str, spent_version: int) -> Session:
        self.attempts.append((session_id, spent_version))
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        await self.gate.wait()
        self.running -= 1
        answer = self.answers[session_id]
        if isinstance(answer, Exception):
            raise answer
        return answer


class NoSessions:
    """No session needs to be touched in these tests."""


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def refresher() -> NotedRefresher:
    return NotedRefresher()


@pytest.fixture
async def manager(clock: ManualClock, refresher: NotedRefresher) -> AsyncIterator[RefreshManager]:
    options = Options(public_url="http://127.0.0.1:8000", refresh_concurrency=3)
    made = RefreshManager(cast(TokenRefresher, refresher), cast(SessionManager, NoSessions()), options, clock=clock)
    yield made
    await made.close()


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_tick_takes_what_falls_due_before_the_next(
    manager: RefreshManager, refresher: NotedRefresher, clock: ManualClock
) -> None:
    """Not earlier, not twice, and again after the new token set."""
    session = make_session(clock, life=100)
    refresher.answers["s"] = make_session(clock, life=300, version=2)
    manager.stream_opened(session)
    clock.advance(83)
    manager.tick()
    await settle()
    assert refresher.attempts == []
    clock.advance(7.1)
    manager.tick()
    manager.tick()
    await settle()
    assert refresher.attempts == [("s", 1)]
    assert manager.scheduled == 1
    clock.advance(100)
    manager.tick()
    await settle()
    assert len(refresher.attempts) == 1


async def test_each_refresh_starts_at_its_own_time(
    manager: RefreshManager, refresher: NotedRefresher, clock: ManualClock
) -> None:
    """What one tick sees to is no burst at its beginning, and a stream that closes before its time is not refreshed."""
    for name, life in (("later", 0.4), ("soon", 0.2), ("closed", 0.3)):
        refresher.answers[name] = make_session(clock, name, life=100, version=2)
        manager.stream_opened(make_session(clock, name, life=life))
    manager.tick()
    await settle()
    assert refresher.attempts == []
    manager.streams_closed("closed")
    async with asyncio.timeout(10):
        while len(refresher.attempts) < 2:  # noqa: ASYNC110 - at its own time, which is the point
            await asyncio.sleep(0.01)
    assert refresher.attempts == [("soon", 1), ("later", 1)]


async def test_requests_come_first(manager: RefreshManager, refresher: NotedRefresher, clock: ManualClock) -> None:
    """What falls due together starts one after the other, until its tokens would soon expire: then all at once."""
    for number in range(3):
        name = f"s{number}"
        refresher.answers[name] = make_session(clock, name, life=1000, version=2)
        manager.stream_opened(make_session(clock, name, life=100))
    manager._pace.gap = LONGEST  # whatever this machine is busy with
    clock.advance(90)
    manager.tick()
    await settle()
    assert len(refresher.attempts) == 1
    clock.advance(6)
    manager.tick()
    await settle()
    assert len(refresher.attempts) == 3


def test_the_pace_follows_the_loop() -> None:
    """Timers that come late make the gap longer, at most so long; when they come in time again it goes back."""
    pace = Pace()
    shortest = pace.gap
    pace.note(0.1)
    assert pace.gap > shortest
    for _ in range(100):
        pace.note(0.1)
    assert pace.gap == LONGEST
    for _ in range(1000):
        pace.note(0.0)
    assert pace.gap == shortest


async def test_no_streams_no_refresh(manager: RefreshManager, refresher: NotedRefresher, clock: ManualClock) -> None:
    """The last stream's end takes the session out, also in the middle of its refresh."""
    refresher.answers["s"] = make_session(clock, version=2)
    manager.stream_opened(make_session(clock))
    manager.streams_closed("s")
    assert manager.scheduled == 0
    manager.stream_opened(make_session(clock, life=0.5))
    clock.advance(0.5)
    refresher.gate.clear()
    manager.tick()
    await settle()
    manager.streams_closed("s")
    refresher.gate.set()
    await settle()
    assert (manager.scheduled, len(refresher.attempts)) == (0, 1)


async def test_bounded_concurrency(manager: RefreshManager, refresher: NotedRefresher, clock: ManualClock) -> None:
    """A tick starts as many as may run and awaits none; the others follow as these end (REL-11)."""
    for number in range(10):
        name = f"s{number}"
        refresher.answers[name] = make_session(clock, name, version=2)
        manager.stream_opened(make_session(clock, name, life=0.5))
    clock.advance(0.5)
    refresher.gate.clear()
    manager.tick()
    await settle()
    assert len(refresher.attempts) == 3
    manager.tick()
    await settle()
    assert len(refresher.attempts) == 3
    refresher.gate.set()
    await settle()
    assert (len(refresher.attempts), refresher.most_running) == (10, 3)


@pytest.mark.parametrize(
    ("failure", "again_after"),
    [
        (LeaseBusy(), 1.0),
        (StoreUnavailableError(), 2.0),
        (RuntimeError("a bug"), 5.0),
    ],
)
async def test_a_failure_always_sets_the_next_attempt(
    manager: RefreshManager,
    refresher: NotedRefresher,
    clock: ManualClock,
    failure: Exception,
    again_after: float,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """REL-27: whatever one refresh raises, it is tried again, and the other sessions are served."""
    refresher.answers["s"] = failure
    refresher.answers["t"] = make_session(clock, "t", version=2)
    manager.stream_opened(make_session(clock, "s", life=0.5))
    manager.stream_opened(make_session(clock, "t", life=0.5))
    clock.advance(0.5)
    manager.tick()
    await settle()
    assert sorted(refresher.attempts) == [("s", 1), ("t", 1)]
    clock.advance(again_after + 0.1)
    manager.tick()
    await settle()
    assert refresher.attempts.count(("s", 1)) == 2
    assert refresher.attempts.count(("t", 1)) == 1


async def test_postponed_until(manager: RefreshManager, refresher: NotedRefresher, clock: ManualClock) -> None:
    """The row's `not_before` is obeyed."""
    refresher.answers["s"] = RefreshPostponed(clock.time() + 20, "the test says so")
    manager.stream_opened(make_session(clock, life=0.5))
    clock.advance(0.5)
    manager.tick()
    await settle()
    clock.advance(18)
    manager.tick()
    await settle()
    assert len(refresher.attempts) == 1
    clock.advance(4)
    manager.tick()
    await settle()
    assert len(refresher.attempts) == 2


async def test_another_process_was_faster(
    manager: RefreshManager, refresher: NotedRefresher, clock: ManualClock
) -> None:
    """Its new token set moves the due time, also while our own attempt found the lease taken."""
    refresher.answers["s"] = LeaseBusy()
    manager.stream_opened(make_session(clock, life=0.5))
    clock.advance(0.5)
    refresher.gate.clear()
    manager.tick()
    await settle()
    manager.session_changed(make_session(clock, life=100, version=2))
    refresher.gate.set()
    await settle()
    clock.advance(50)
    manager.tick()
    await settle()
    assert len(refresher.attempts) == 1
    clock.advance(41)
    manager.tick()
    await settle()
    assert refresher.attempts[-1] == ("s", 2)


async def test_a_loop_that_stood_still_is_seen(
    manager: RefreshManager, refresher: NotedRefresher, clock: ManualClock
) -> None:
    """REL-25: the refresh that should have begun meanwhile says by how much it is late, which is `refresh.lag_ms`;
    it begins at once, and the next tick is in time."""
    refresher.answers["s"] = make_session(clock, life=100, version=2)
    manager.stream_opened(make_session(clock, life=0.5))
    clock.advance(0.5)
    before = manager.overdue
    assert 0.0 <= before < 0.1
    clock.advance(3)
    assert manager.overdue == pytest.approx(before + 3)
    manager.tick()
    await settle()
    assert refresher.attempts == [("s", 1)]
    assert manager.lag == pytest.approx(before + 3)
    assert manager.overdue == 0.0
    manager.tick()
    assert manager.lag == 0.0


async def test_the_wall_clock_jumps(manager: RefreshManager, refresher: NotedRefresher, clock: ManualClock) -> None:
    """REL-11: back changes nothing; ahead makes due what has expired, spread."""
    for number in range(40):
        name = f"s{number}"
        refresher.answers[name] = make_session(clock, name, life=10_000, version=2)
        manager.stream_opened(make_session(clock, name, life=100))
    clock.jump(-3600)
    clock.advance(84)
    manager.tick()
    await settle()
    assert refresher.attempts == []
    clock.jump(7200)
    manager.tick()
    await settle()
    assert len(refresher.attempts) < 40
    for _ in range(int(SPREAD) + 1):
        clock.advance(1)
        manager.tick()
        await settle()
    assert len(refresher.attempts) == 40


async def test_the_periodic_callback_does_not_follow_the_wall_clock() -> None:
    """REL-11, and a pin on the one method of Tornado that is overridden: it fails when Tornado changes it."""
    source = inspect.getsource(PeriodicCallback)
    assert "def _schedule_next(self)" in source
    assert "self._schedule_next()" in inspect.getsource(PeriodicCallback.start)
    assert "self._schedule_next()" in inspect.getsource(PeriodicCallback._run)
    ticks = 0
    ticked = asyncio.Event()

    def tick() -> None:
        nonlocal ticks
        ticks += 1
        loop.time = lambda: -3600.0  # type: ignore[method-assign]
        if ticks == 3:
            ticked.set()

    loop = IOLoop.current()
    true_time = loop.time
    periodic = MonotonicPeriodicCallback(tick, 1)
    periodic.start()
    try:
        await asyncio.wait_for(ticked.wait(), 5)
    finally:
        periodic.stop()
        loop.time = true_time  # type: ignore[method-assign]
