"""Several holders, lost acknowledgements, shutdown: who may send a refresh token, and whose result counts."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from tests.parts.scripted_provider import Answer
from tests.scenarios.refresh_kit import Kit
from tornado_sse_auth.errors import InvalidTokenError, ProviderUnavailableError, StoreUnavailableError
from tornado_sse_auth.identity import Session, SessionState
from tornado_sse_auth.sessions import lease
from tornado_sse_auth.sessions.lease import LEASE_LENGTH
from tornado_sse_auth.sessions.refreshed_identity import ENRICH_INTERVAL
from tornado_sse_auth.sessions.token_refresh import LeaseBusy, RefreshPostponed, TokenRefresher
from tornado_sse_auth.stores.base import Lease


async def watch(kit: Kit, refresher: TokenRefresher, session: Session, seconds: float) -> None:
    """Look at a lease once a second, as the refresh manager does."""
    for _ in range(int(seconds)):
        with pytest.raises(LeaseBusy):
            await refresher.attempt(session.id, session.token_version)
        kit.clock.advance(1.0)


async def test_a_lease_whose_acknowledgement_was_lost_counts_for_nothing(
    kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often the store takes the lease and does not say so: nothing was sent, nobody is signed out."""
    session = await kit.session()
    real = kit.store.take_lease

    async def take(*arguments: Any, **options: Any) -> Any:
        taken = await real(*arguments, **options)
        if isinstance(taken, Lease):
            raise StoreUnavailableError(reason="applied, says the test, and never acknowledged")
        return taken

    monkeypatch.setattr(kit.store, "take_lease", take)
    for _ in range(3):
        with pytest.raises(StoreUnavailableError):
            await kit.attempt(session)
        with pytest.raises(LeaseBusy):  # it is found to be our own, and given back
            await kit.attempt(session)
    row = await kit.row(session)
    assert (row.state, row.refresh.presented, row.refresh.owner) == (SessionState.ACTIVE, 0, None)
    monkeypatch.undo()
    assert (await kit.attempt(session)).token_version == 2
    assert kit.metrics.counters["token.refresh.reattempt"] == 0
    assert kit.presentations(session) == 1


async def test_the_last_holder_is_watched_before_the_user_is_asked(kit: Kit) -> None:
    """REL-04: a second presentation whose result its holder still keeps in memory, while the store was away."""
    session = await kit.session()
    other = kit.another()
    kit.scripted.strict = False
    kit.scripted.script("token", Answer(delivery="cut"))
    with pytest.raises(RefreshPostponed):
        await kit.attempt(session)
    kit.clock.advance(40.0)
    kit.store.away = True
    assert (await kit.attempt(session)).token_version == 2  # held, not stored
    kit.clock.advance(LEASE_LENGTH + 1.0)
    assert (await kit.row(session)).refresh.presented == 2
    await watch(kit, other, session, 3.0)
    kit.store.away = False
    await kit.refresher.close(5.0)
    row = await kit.row(session)
    assert (row.state, row.token_version) == (SessionState.ACTIVE, 2)


async def test_a_refusal_of_a_late_holder_leaves_the_newer_lease_alone(kit: Kit) -> None:
    """REL-05: `invalid_grant` for one who lost the lease meanwhile says nothing of the token that another just got."""
    session = await kit.session()
    other = kit.another()
    kit.scripted.strict = False
    refused, answered = asyncio.Event(), asyncio.Event()
    kit.scripted.script(
        "token", Answer(gate=refused, status=400, body='{"error":"invalid_grant"}'), Answer(gate=answered)
    )
    late = asyncio.create_task(kit.attempt(session))
    await kit.scripted.wait_for_calls("token", 1)
    kit.clock.advance(LEASE_LENGTH + 1.0)
    await watch(kit, other, session, LEASE_LENGTH)
    winner = asyncio.create_task(other.attempt(session.id, session.token_version))
    await kit.scripted.wait_for_calls("token", 2)
    refused.set()
    with pytest.raises(LeaseBusy):
        await late
    answered.set()
    assert (await winner).token_version == 2
    assert (await kit.row(session)).state is SessionState.ACTIVE
    await other.close(5.0)


async def test_another_subject_ends_the_session_when_the_store_is_back(
    kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SEC-27: the store is away at the very moment."""
    session = await kit.session()
    kit.scripted.refresh_subject = "mallory"
    real, refusals = kit.store.delete, 2

    async def delete(session_id: str) -> bool:
        nonlocal refusals
        refusals -= 1
        if refusals >= 0:
            raise StoreUnavailableError(reason="away, says the test")
        return await real(session_id)

    monkeypatch.setattr(kit.store, "delete", delete)
    with pytest.raises(InvalidTokenError):
        await kit.attempt(session)
    await kit.refresher.close(5.0)
    assert await kit.store.find(session.id) is None
    assert kit.heard.ended == [(session.id, "revoked")]


async def test_a_narrowed_scope_is_stored_with_the_token_set(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    """SEC-49: whatever becomes of the mapper that an application wrote."""
    session = await kit.session()

    def broken(claims: object, scopes: object) -> Any:
        raise KeyError("role")

    monkeypatch.setattr(kit.refresher._identity, "_mapper", broken)
    kit.scripted.script("token", Answer(change={"scope": "openid offline_access profile"}))
    await kit.attempt(session)
    await kit.refresher.close(5.0)
    assert (await kit.row(session)).scopes == {"openid", "offline_access", "profile"}


async def test_what_the_provider_no_longer_says_is_forgotten(kit: Kit) -> None:
    """A permission and a subscription that an account lost are gone once ID token and userinfo were read again."""
    kit.scripted.accounts["alice"] = {"subscription_level": "pro", "permissions": ["trade"]}
    session = await kit.session()
    kit.clock.advance(ENRICH_INTERVAL)
    await kit.settled(session)
    before = await kit.row(session)
    assert (before.subscription, before.permissions) == ("pro", {"trade"})
    kit.scripted.accounts["alice"] = {}
    kit.clock.advance(ENRICH_INTERVAL)
    await kit.settled(before)
    after = await kit.row(session)
    assert (after.subscription, after.permissions) == (None, frozenset())


async def test_what_comes_after_a_revocation_is_revoked_too(kit: Kit) -> None:
    """The session ends while its refresh is under way: the new token does not live on at the provider."""
    session = await kit.session()
    gate = asyncio.Event()
    kit.scripted.script("token", Answer(gate=gate))
    attempt = asyncio.create_task(kit.attempt(session))
    await kit.scripted.wait_for_calls("token")
    await kit.sessions.revoke(session.id)
    await kit.scripted.wait_for_calls("revoke", 1)
    gate.set()
    with pytest.raises(InvalidTokenError):
        await attempt
    await kit.scripted.wait_for_calls("revoke", 2)
    assert len({call.form["token"] for call in kit.scripted.calls("revoke")}) == 2


async def test_after_the_close_nothing_is_sent(kit: Kit) -> None:
    """REL-19: what waits for its turn is refused, what is under way may end, what is late is told so."""
    busy = kit.another(refresh_concurrency=1)
    sessions = [await kit.session() for _ in range(3)]
    gate = asyncio.Event()
    kit.scripted.script("token", Answer(gate=gate))
    under_way, waiting = (asyncio.create_task(busy.fresh(session, min_ttl=30)) for session in sessions[:2])
    await kit.scripted.wait_for_calls("token")
    await busy.close(0.05)
    for caller in (under_way, waiting):
        with pytest.raises(ProviderUnavailableError):
            await caller
    with pytest.raises(ProviderUnavailableError):
        await busy.fresh(sessions[2], min_ttl=30)
    gate.set()
    assert len(kit.scripted.calls("token")) == 1


async def test_a_lease_is_renewed_while_the_provider_takes_its_time(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    """REL-02; oauth2-proxy#3456: the answer comes after three lease lengths, and nobody else has asked meanwhile."""
    monkeypatch.setattr(lease, "LEASE_RENEWAL", 0.01)
    session = await kit.session()
    other = kit.another()
    gate = asyncio.Event()
    kit.scripted.script("token", Answer(gate=gate))
    slow = asyncio.create_task(kit.attempt(session))
    await kit.scripted.wait_for_calls("token")
    for _ in range(8):
        kit.clock.advance(LEASE_LENGTH - 5.0)
        async with asyncio.timeout(10):
            while (await kit.row(session)).refresh.until < kit.clock.time() + LEASE_LENGTH:  # noqa: ASYNC110 - by its holder's timer
                await asyncio.sleep(0.005)
        with pytest.raises(LeaseBusy):
            await other.attempt(session.id, session.token_version)
    gate.set()
    assert (await slow).token_version == 2
    assert len(kit.scripted.calls("token")) == 1
    assert kit.metrics.counters["token.refresh.reattempt"] == 0
    await other.close(5.0)


async def test_a_provider_that_is_gone_is_asked_by_a_few_and_for_all(kit: Kit) -> None:
    """REL-17: a hundred and fifty sessions due at once, a provider that fails for ten minutes: trial calls, one at a
    time, further and further apart; nobody is signed out, no token is presented twice after a known outcome, and
    soon after its return everybody has a new token set."""
    sessions = [await kit.session(subject=f"user{number}") for number in range(150)]
    begun = kit.clock.monotonic()
    kit.scripted.script("token", *[Answer(status=503)] * 1000)
    at: list[float] = []

    async def tick(waiting: list[Session]) -> list[Session]:
        """What the refresh managers of a process do in a second; gives who still waits."""
        before = len(kit.scripted.calls("token"))
        results = await asyncio.gather(*map(kit.attempt, waiting), return_exceptions=True)
        at.extend([kit.clock.monotonic() - begun] * (len(kit.scripted.calls("token")) - before))
        assert all(isinstance(result, Session | RefreshPostponed) for result in results), results
        kit.clock.advance(1.0)
        return [one for one, result in zip(waiting, results, strict=True) if isinstance(result, RefreshPostponed)]

    for second in range(600):
        if second < 30 or second % 10 == 0:
            sessions = await tick(sessions)
        else:
            kit.clock.advance(1.0)
    assert len(sessions) == 150
    first_minute, later = sum(when < 60 for when in at), sum(when >= 60 for when in at)
    assert first_minute <= 5 + 10 + 10  # until the breaker opens, those under way then, and trials
    assert later <= 540 / 30 + 1  # one trial each longest pause
    for session in sessions:
        assert (await kit.row(session)).state is SessionState.ACTIVE
    kit.scripted._scripts.clear()
    seconds = 0
    while sessions:
        sessions = await tick(sessions)
        seconds += 1
        assert seconds <= 90
    assert kit.metrics.counters["token.refresh.success"] == 150
    assert kit.scripted.revoked_families == 0


async def test_a_success_does_not_end_the_pause_that_the_provider_asked_for(kit: Kit) -> None:
    """REL-12: a provider that limits its clients lets some calls pass and tells others to wait: all wait, also when one
    of those that passed is answered later."""
    told, passed, waiting = [await kit.session(subject=name) for name in ("told", "passed", "waiting")]
    gate = asyncio.Event()
    kit.scripted.script_refresh("passed", Answer(gate=gate))
    kit.scripted.script_refresh("told", Answer(status=429, headers={"Retry-After": "30"}))
    under_way = asyncio.create_task(kit.attempt(passed))
    await kit.scripted.wait_for_calls("token")
    with pytest.raises(RefreshPostponed):
        await kit.attempt(told)
    gate.set()
    assert (await under_way).token_version == 2
    with pytest.raises(RefreshPostponed):
        await kit.attempt(waiting)
    assert len(kit.scripted.refreshes("waiting")) == 0
    kit.clock.advance(31.0)
    assert (await kit.attempt(waiting)).token_version == 2


async def test_what_an_older_token_says_of_the_user_comes_too_late(kit: Kit) -> None:
    """REL-03: userinfo answers slowly, and meanwhile the user has signed in again with other rights: those stay."""
    session = await kit.session()
    kit.clock.advance(ENRICH_INTERVAL)
    gate = asyncio.Event()
    kit.scripted.script("userinfo", Answer(gate=gate, change={"groups": ["admins"]}))
    refresh = asyncio.create_task(kit.settled(session))
    await kit.scripted.wait_for_calls("userinfo")
    newer = {**session.claims, "groups": ["guests"]}
    await kit.sessions.update(
        session.id, lambda stored: replace(stored, token_version=stored.token_version + 1, claims=newer)
    )
    gate.set()
    await refresh
    assert (await kit.row(session)).claims["groups"] == ["guests"]
