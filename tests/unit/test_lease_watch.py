"""How long an expired lease must stand unchanged before its token is presented again."""

from __future__ import annotations

from dataclasses import replace

from tests.stores.backends import make_session
from tornado_sse_auth.identity import RefreshState, Session
from tornado_sse_auth.sessions.lease import LEASE_LENGTH, LeaseWatch
from tornado_sse_auth.testing import ManualClock


def lapsed(clock: ManualClock, name: str, until: float) -> Session:
    return replace(make_session(clock, name), refresh=RefreshState(owner="o", fence=1, presented=1, until=until))


def test_a_lease_that_was_renewed_between_two_looks_is_watched_anew() -> None:
    """REL-03: with looks as rare as a long `refresh_interval` makes them, its holder may have lived meanwhile."""
    clock = ManualClock()
    watch = LeaseWatch(30.0, clock)
    assert not watch.look(lapsed(clock, "s1", until=1.0))
    clock.advance(LEASE_LENGTH - 1)
    assert not watch.look(lapsed(clock, "s1", until=2.0))
    clock.advance(LEASE_LENGTH - 1)
    assert not watch.look(lapsed(clock, "s1", until=2.0))
    assert watch.seen("s1") is None
    clock.advance(1)
    assert watch.look(lapsed(clock, "s1", until=2.0))
    assert watch.seen("s1") == 1


def test_what_nobody_looks_at_is_forgotten() -> None:
    """REL-28: sessions that ended, or lost their streams, while they were watched leave nothing behind."""
    clock = ManualClock()
    watch = LeaseWatch(5.0, clock)
    for number in range(100):
        watch.look(lapsed(clock, f"s{number}", until=1.0))
        clock.advance(1)
    assert len(watch) <= 6
