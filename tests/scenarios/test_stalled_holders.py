"""A process that stands still while it holds a lease: stopped, starved, or on a machine that slept."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.parts.scripted_provider import Answer
from tests.scenarios.refresh_kit import Kit
from tornado_sse_auth.errors import ProviderUnavailableError, StoreUnavailableError
from tornado_sse_auth.identity import Session, SessionState
from tornado_sse_auth.sessions import lease
from tornado_sse_auth.sessions.lease import LEASE_LENGTH
from tornado_sse_auth.sessions.token_refresh import LeaseBusy, RefreshPostponed
from tornado_sse_auth.stores.base import Lease


async def test_who_slept_through_the_lease_does_not_send_any_more(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    """REL-03: stopped between the lease and the first byte. A successor has watched, presented the token and stored the
    new set; a strict provider revokes the family of a token that comes once more."""
    session = await kit.session()
    other = kit.another()
    real, granted, awake = kit.store.take_lease, asyncio.Event(), asyncio.Event()

    async def take(*arguments: Any, **options: Any) -> Any:
        taken = await real(*arguments, **options)
        if isinstance(taken, Lease) and not granted.is_set():
            granted.set()
            await awake.wait()
        return taken

    monkeypatch.setattr(kit.store, "take_lease", take)
    stalled = asyncio.create_task(kit.attempt(session))
    await granted.wait()
    kit.clock.advance(LEASE_LENGTH + 1.0)
    for _ in range(int(LEASE_LENGTH)):
        with pytest.raises(LeaseBusy):
            await other.attempt(session.id, session.token_version)
        kit.clock.advance(1.0)
    newer = await other.attempt(session.id, session.token_version)
    assert newer.token_version == 2
    awake.set()
    with pytest.raises(LeaseBusy):
        await stalled
    assert kit.presentations(session) == 1
    assert kit.scripted.revoked_families == 0
    kit.clock.advance(1000.0)
    assert (await kit.attempt(newer)).token_version == 3
    await other.close(5.0)


@pytest.mark.parametrize("slept", [False, True], ids=["stopped", "the machine slept"])
async def test_a_lease_that_ran_out_unsent_is_given_back(
    kit: Kit, monkeypatch: pytest.MonkeyPatch, slept: bool
) -> None:
    """REL-03, REL-11: nobody took it over: nothing was sent, so that the next attempt begins at once, as the first."""
    session = await kit.session()
    real = kit.store.take_lease

    async def take(*arguments: Any, **options: Any) -> Any:
        taken = await real(*arguments, **options)
        monkeypatch.undo()
        pass_time = kit.clock.jump if slept else kit.clock.advance
        pass_time(LEASE_LENGTH + 1.0)
        return taken

    monkeypatch.setattr(kit.store, "take_lease", take)
    with pytest.raises(LeaseBusy):
        await kit.attempt(session)
    row = await kit.row(session)
    assert (row.state, row.refresh.owner, row.refresh.presented) == (SessionState.ACTIVE, None, 0)
    assert kit.presentations(session) == 0
    assert (await kit.attempt(session)).token_version == 2
    assert kit.metrics.counters["token.refresh.reattempt"] == 0


async def test_the_life_of_a_token_is_not_counted_from_when_we_woke(kit: Kit) -> None:
    """REL-11: stopped for ten minutes with the answer in the socket: a token of five minutes is over by then, and is
    given to nobody."""
    session = await kit.session()
    gate = asyncio.Event()
    kit.scripted.script("token", Answer(gate=gate))
    stopped = asyncio.create_task(kit.refresher.fresh(session, min_ttl=30))
    await kit.scripted.wait_for_calls("token")
    kit.clock.advance(600.0)
    gate.set()
    with pytest.raises(ProviderUnavailableError):  # it waits no longer
        await stopped
    await kit.refresher.close(5.0)
    row = await kit.row(session)
    assert row.token_version == 2
    assert row.token_set is not None
    assert row.token_set.expires_at <= kit.clock.time()
    other = kit.another()
    assert (await other.fresh(row, min_ttl=30)).token_version == 3
    await other.close(5.0)


async def test_nobody_sends_in_a_pause_that_began_while_the_store_was_asked(
    kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """REL-12, REL-17: ten sessions are due, and ask the store for their leases; the first is told to wait. The pause
    counts for those, too, whose lease comes only then."""
    sessions = [await kit.session(subject=f"user{number}") for number in range(10)]
    real, told = kit.store.take_lease, asyncio.Event()
    first = sessions[0].id

    async def take(session_id: str, **options: Any) -> Any:
        if session_id != first:
            await told.wait()
        return await real(session_id, **options)

    monkeypatch.setattr(kit.store, "take_lease", take)
    kit.scripted.script("token", Answer(status=429, headers={"Retry-After": "30"}))
    attempts = [asyncio.create_task(kit.attempt(session)) for session in sessions]
    with pytest.raises(RefreshPostponed):
        await attempts[0]
    told.set()
    results = await asyncio.gather(*attempts, return_exceptions=True)
    assert all(isinstance(result, RefreshPostponed) for result in results)
    assert len(kit.scripted.calls("token")) == 1
    for session in sessions[1:]:
        row = await kit.row(session)
        assert (row.refresh.owner, row.refresh.presented, row.refresh.failures) == (None, 0, 0)
    kit.clock.advance(30.0)
    results = await asyncio.gather(*map(kit.attempt, sessions), return_exceptions=True)
    # One on trial; the others have waited for what it says.
    assert sum(isinstance(result, Session) for result in results) == 1
    assert len(kit.scripted.calls("token")) == 2


async def test_a_renewal_that_the_store_missed_comes_again_soon(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    """REL-02: not after another third of the lease: two misses would be its end."""
    monkeypatch.setattr(lease, "LEASE_RENEWAL", 0.01)
    monkeypatch.setattr(lease, "RENEWED_AGAIN_AFTER", 0.01)
    session = await kit.session()
    real, renewed, misses = kit.store.renew_lease, asyncio.Event(), 3

    async def renew(*arguments: Any) -> bool:
        nonlocal misses
        monkeypatch.setattr(lease, "LEASE_RENEWAL", 3600.0)  # the regular one would come too late for this test
        misses -= 1
        if misses >= 0:
            raise StoreUnavailableError(reason="away, says the test")
        done = await real(*arguments)
        renewed.set()
        return done

    monkeypatch.setattr(kit.store, "renew_lease", renew)
    gate = asyncio.Event()
    kit.scripted.script("token", Answer(gate=gate))
    refreshing = asyncio.create_task(kit.attempt(session))
    await asyncio.wait_for(renewed.wait(), 20)
    gate.set()
    assert (await refreshing).token_version == 2
