"""The refresh manager of a middleware that is closed and started again in one process."""

from __future__ import annotations

from typing import cast

from tests.unit.test_refresh_manager import NoSessions, NotedRefresher, make_session, settle
from tornado_sse_auth.options import Options
from tornado_sse_auth.refresh.manager import RefreshManager
from tornado_sse_auth.sessions.manager import SessionManager
from tornado_sse_auth.sessions.token_refresh import TokenRefresher
from tornado_sse_auth.testing import ManualClock


async def test_what_waited_when_it_was_closed_is_planned_again() -> None:
    """REL-19: one refresh runs and one waits for it, and both are given up. Their streams come back to the same
    process, and neither is left without a refresh."""
    clock, refresher = ManualClock(), NotedRefresher()
    options = Options(public_url="http://127.0.0.1:8000", refresh_concurrency=1)
    manager = RefreshManager(cast(TokenRefresher, refresher), cast(SessionManager, NoSessions()), options, clock=clock)
    sessions = [make_session(clock, name, life=100) for name in ("one", "other")]
    refresher.gate.clear()
    for session in sessions:
        refresher.answers[session.id] = make_session(clock, session.id, life=1000, version=2)
        manager.stream_opened(session)
    clock.advance(100)
    manager.tick()
    await settle()
    assert len(refresher.attempts) == 1
    for session in sessions:
        manager.streams_closed(session.id)
    await manager.close()

    refresher.gate.set()
    manager.start()
    for session in sessions:
        manager.stream_opened(session)
    manager.tick()
    await settle()
    assert sorted(refresher.attempts[1:]) == [("one", 1), ("other", 1)]
    await manager.close()
