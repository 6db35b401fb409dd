"""The refresh of one session, with a provider that fails in every way: what is spent, stored and told."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from tests.parts.scripted_provider import Answer, ScriptedProvider
from tests.scenarios.refresh_kit import Kit, make_kit
from tornado_sse_auth.errors import InvalidTokenError, ProviderUnavailableError, ReauthorizationRequiredError
from tornado_sse_auth.identity import Secret, Session, SessionState
from tornado_sse_auth.sessions.lease import LEASE_LENGTH
from tornado_sse_auth.sessions.refreshed_identity import ENRICH_INTERVAL
from tornado_sse_auth.sessions.token_refresh import LeaseBusy, RefreshPostponed
from tornado_sse_auth.stores.base import Lease


async def test_many_callers_one_call(kit: Kit) -> None:
    """REL-29, REL-26: fifty requests with an expired token make one call, also when some of them go away meanwhile."""
    session = await kit.session()
    gate = asyncio.Event()
    kit.scripted.script("token", Answer(gate=gate))
    callers = [asyncio.create_task(kit.refresher.fresh(session, min_ttl=30)) for _ in range(50)]
    await kit.scripted.wait_for_calls("token")
    for caller in callers[:10]:
        caller.cancel()
    gate.set()
    results = await asyncio.gather(*callers, return_exceptions=True)
    assert [isinstance(result, asyncio.CancelledError) for result in results[:10]] == [True] * 10
    assert {result.token_version for result in results[10:] if isinstance(result, Session)} == {2}
    assert len(kit.scripted.calls("token")) == 1
    row = await kit.row(session)
    assert row.token_version == 2
    assert row.refresh.owner is None
    assert row.refresh.intent is None
    assert kit.heard.changed[-1].token_version == 2
    assert kit.metrics.counters["token.refresh.success"] == 1


async def test_everybody_leaves_and_the_result_is_stored(kit: Kit) -> None:
    """REL-26: the last caller's cancellation does not cancel the call."""
    session = await kit.session()
    gate = asyncio.Event()
    kit.scripted.script("token", Answer(gate=gate))
    caller = asyncio.create_task(kit.refresher.fresh(session, min_ttl=30))
    await kit.scripted.wait_for_calls("token")
    caller.cancel()
    await asyncio.gather(caller, return_exceptions=True)
    gate.set()
    await kit.refresher.close(5.0)
    assert (await kit.row(session)).token_version == 2


@pytest.mark.parametrize(
    "answer",
    [
        Answer(status=500),
        Answer(status=500, body='{"error": "invalid_grant"}'),
        Answer(status=429, headers={"Retry-After": "7"}),
        Answer(status=503, headers={"Retry-After": "-1"}),
        Answer(status=404, body="{}"),
        Answer(status=503, delivery="gzip"),
        Answer(status=502, body=b"<p>" * 100_000),
    ],
    ids=["500", "500 with invalid_grant", "429", "503", "404", "503 in gzip", "502 with a long page"],
)
async def test_a_complete_refusal_spends_nothing(kit: Kit, answer: Answer) -> None:
    """REL-10, REL-12, REL-13: transient; nothing is stored, and the same token is presented after the back-off."""
    session = await kit.session()
    kit.scripted.script("token", answer)
    with pytest.raises(RefreshPostponed) as postponed:
        await kit.attempt(session)
    row = await kit.row(session)
    assert row.token_set == session.token_set
    assert (row.state, row.refresh.intent, row.refresh.presented) == (SessionState.ACTIVE, None, 0)
    assert row.refresh.not_before == pytest.approx(postponed.value.until)
    if answer.status == 429:
        assert postponed.value.until >= kit.clock.time() + 7
    with pytest.raises(RefreshPostponed):  # REL-12: no call in the pause
        await kit.attempt(session)
    assert kit.presentations(session) == 1
    kit.clock.advance(31)
    assert (await kit.attempt(session)).token_version == 2
    assert kit.metrics.counters["token.refresh.reattempt"] == 0


@pytest.mark.parametrize(
    "answer",
    [
        Answer(delivery="cut", spends=False),
        Answer(delivery="cut_midway", spends=False),
        Answer(delivery="hang", spends=False),
        Answer(body="<html>", spends=False),
        Answer(body="[]", spends=False),
        Answer(body="{}", spends=False),
        Answer(change={"access_token": 7}, spends=False),
        Answer(delivery="gzip", spends=False),
        Answer(delivery="endless", spends=False),
    ],
    ids=["cut", "cut midway", "hang", "HTML", "list", "empty", "number as token", "gzip", "endless"],
)
async def test_an_unknown_outcome_is_presented_once_more(kit: Kit, answer: Answer) -> None:
    """REL-13, REL-15: no complete, readable answer came, so that the token may be spent: one more try, counted."""
    session = await kit.session()
    kit.scripted.script("token", answer)
    with pytest.raises(RefreshPostponed):
        await kit.attempt(session)
    row = await kit.row(session)
    assert (row.refresh.presented, row.refresh.owner) == (1, None)
    assert row.token_set == session.token_set
    kit.clock.advance(61)
    assert (await kit.attempt(session)).token_version == 2
    assert kit.presentations(session) == 2
    assert kit.metrics.counters["token.refresh.reattempt"] == 1


async def test_a_token_that_was_spent_unseen_is_lost_once(kit: Kit) -> None:
    """REL-04: the provider rotated and its answer was lost; a strict one refuses the one re-presentation."""
    session = await kit.session()
    kit.scripted.script("token", Answer(delivery="cut", spends=True))
    with pytest.raises(RefreshPostponed):
        await kit.attempt(session)
    kit.clock.advance(31)
    with pytest.raises(ReauthorizationRequiredError):
        await kit.attempt(session)
    with pytest.raises(ReauthorizationRequiredError):
        await kit.attempt(session)
    assert kit.presentations(session) == 2
    row = await kit.row(session)
    assert row.state is SessionState.REAUTHORIZATION
    assert row.reauth is not None
    assert kit.metrics.counters["token.refresh.lost"] == 1
    assert kit.heard.changed[-1].state is SessionState.REAUTHORIZATION


async def test_two_unknown_outcomes_end_it(kit: Kit) -> None:
    """A refresh token is never presented a third time."""
    session = await kit.session()
    kit.scripted.script("token", Answer(delivery="cut", spends=False), Answer(delivery="cut", spends=False))
    with pytest.raises(RefreshPostponed):
        await kit.attempt(session)
    kit.clock.advance(31)
    with pytest.raises(ReauthorizationRequiredError):
        await kit.attempt(session)
    kit.clock.advance(61)
    with pytest.raises(ReauthorizationRequiredError):
        await kit.attempt(session)
    assert kit.presentations(session) == 2
    assert (await kit.row(session)).reauth_reason == "refresh_outcome_unknown"


async def test_no_represent_to_a_provider_that_is_away(kit: Kit) -> None:
    """The one re-presentation waits until the provider answers something at all."""
    session = await kit.session()
    kit.scripted.script("token", Answer(delivery="cut", spends=False))
    with pytest.raises(RefreshPostponed):
        await kit.attempt(session)
    for _ in range(3):
        kit.clock.advance(61)
        kit.scripted.script("discovery", Answer(status=503))
        with pytest.raises(RefreshPostponed):
            await kit.attempt(session)
    assert kit.presentations(session) == 1
    kit.clock.advance(61)
    assert (await kit.attempt(session)).token_version == 2


async def test_a_holder_that_died_is_watched_before_its_token_is_presented_again(kit: Kit) -> None:
    """REL-03, REL-04: an expired lease with an intent must stand unchanged for one more lease length."""
    session = await kit.session()
    assert session.token_set is not None
    assert session.token_set.refresh_token is not None
    dead = await kit.store.take_lease(
        session.id,
        owner="dead",
        token_version=session.token_version,
        intent=session.token_set.refresh_token.digest(),
        duration=LEASE_LENGTH,
    )
    assert isinstance(dead, Lease)
    with pytest.raises(LeaseBusy):
        await kit.attempt(session)
    kit.clock.advance(LEASE_LENGTH + 0.1)
    with pytest.raises(LeaseBusy):  # expired: the watch begins
        await kit.attempt(session)
    kit.clock.advance(LEASE_LENGTH)
    with pytest.raises(LeaseBusy):  # nobody looked: the store may have been away for the holder too
        await kit.attempt(session)
    for _ in range(int(LEASE_LENGTH) - 1):
        kit.clock.advance(1.0)
        with pytest.raises(LeaseBusy):
            await kit.attempt(session)
    assert kit.presentations(session) == 0
    kit.clock.advance(1.1)
    assert (await kit.attempt(session)).token_version == 2
    assert kit.metrics.counters["token.refresh.reattempt"] == 1
    # REL-03: the dead one comes back with an answer of its own; something newer stands there.
    late = await kit.store.save_refresh(session, spent_version=session.token_version)
    assert late is None


async def test_two_processes_spend_a_token_once(scripted: ScriptedProvider, kit: Kit) -> None:
    """The loser takes over the winner's result from the row."""
    other = await make_kit(scripted, kit.store, kit.clock)
    session = await kit.session()
    gate = asyncio.Event()
    scripted.script("token", Answer(gate=gate))
    winner = asyncio.create_task(kit.refresher.fresh(session, min_ttl=30))
    await scripted.wait_for_calls("token")
    loser = asyncio.create_task(other.refresher.fresh(session, min_ttl=30))
    with pytest.raises(LeaseBusy):
        await other.attempt(session)
    gate.set()
    assert (await winner).token_set == (await loser).token_set
    assert len(scripted.calls("token")) == 1
    await other.provider.close()
    await other.sessions.close()


async def test_invalid_grant_because_another_process_won(kit: Kit) -> None:
    """REL-09: the row is read once more before anybody is signed out."""
    session = await kit.session()
    gate = asyncio.Event()
    kit.scripted.script("token", Answer(status=400, body='{"error": "invalid_grant"}', gate=gate))
    attempt = asyncio.create_task(kit.attempt(session))
    await kit.scripted.wait_for_calls("token")
    newer = replace(session.token_set or pytest.fail("no tokens"), access_token=Secret("newer"))
    await kit.store.save_refresh(replace(session, token_set=newer), spent_version=session.token_version)
    gate.set()
    assert (await attempt).token_set == newer
    assert (await kit.row(session)).state is SessionState.ACTIVE


@pytest.mark.parametrize(
    "answer",
    [Answer(status=400, body='{"error": "invalid_grant"}'), Answer(status=200, body='{"error": "bad_refresh_token"}')],
)
async def test_a_permanent_refusal_needs_the_user(kit: Kit, answer: Answer) -> None:
    """REL-10: state `reauthorization`; the row stays and can be revived by the same user's sign-in."""
    session = await kit.session()
    kit.scripted.script("token", answer)
    with pytest.raises(ReauthorizationRequiredError):
        await kit.refresher.fresh(session, min_ttl=30)
    row = await kit.row(session)
    assert (row.state, row.reauth_reason) == (SessionState.REAUTHORIZATION, "refresh_rejected")
    assert row.reauth is not None
    assert (await kit.sessions.find_by_reauth(row.reauth)) is not None
    assert kit.metrics.counters["token.refresh.permanent"] == 1


async def test_a_refused_client_is_an_alarm_and_no_sign_out(kit: Kit) -> None:
    """REL-10: `invalid_client` concerns the operator."""
    session = await kit.session()
    kit.scripted.script("token", Answer(status=401, body='{"error": "invalid_client"}'))
    with pytest.raises(RefreshPostponed):
        await kit.attempt(session)
    assert (await kit.row(session)).state is SessionState.ACTIVE
    assert kit.refresher.condition.client_rejected_since is not None
    kit.clock.advance(61)
    assert (await kit.attempt(session)).token_version == 2
    assert kit.refresher.condition.client_rejected_since is None


async def test_the_store_is_away_when_the_answer_comes(kit: Kit) -> None:
    """REL-05: the new token set is served from memory and written later; the old one is never presented again."""
    session = await kit.session()
    kit.store.away = True
    fresh = await kit.refresher.fresh(session, min_ttl=30)
    assert fresh.token_version == 2
    assert kit.refresher.condition.unsaved == {session.id}
    assert (await kit.row(session)).token_version == 1
    kit.clock.advance(3 * LEASE_LENGTH)  # far past the lease's end
    assert (await kit.refresher.fresh(session, min_ttl=30)).token_set == fresh.token_set
    kit.store.away = False
    await kit.refresher.close(5.0)
    row = await kit.row(session)
    assert (row.token_version, row.token_set) == (2, fresh.token_set)
    assert kit.presentations(session) == 1
    assert kit.refresher.condition.unsaved == set()


async def test_what_the_answer_leaves_out(kit: Kit) -> None:
    """REL-14: no rotation keeps the refresh token, no `expires_in` keeps the life, no scope keeps the scopes."""
    session = await kit.session(life=300)
    kit.scripted.script("token", Answer(change={"refresh_token": None, "expires_in": None, "scope": None}))
    fresh = await kit.attempt(session)
    assert fresh.token_set is not None
    assert session.token_set is not None
    assert fresh.token_set.refresh_token == session.token_set.refresh_token
    assert fresh.token_set.lifetime == 300
    assert fresh.scopes == session.scopes


async def test_a_narrowed_scope_shrinks_the_session(kit: Kit) -> None:
    """What the provider took away is gone here too."""
    session = await kit.session()
    kit.scripted.script("token", Answer(change={"scope": "openid offline_access profile"}))
    await kit.attempt(session)
    await kit.refresher.close(5.0)
    assert "prices:read" not in (await kit.row(session)).scopes
    assert "prices:read" not in kit.heard.changed[-1].scopes


@pytest.mark.parametrize("keys", ["known", "away", "in the header"])
async def test_another_subject_ends_the_session(kit: Kit, keys: str) -> None:
    """SEC-27: a refresh that answers for somebody else: nothing of it is stored, told, given out or sent anywhere, not
    even where its ID token cannot be verified, or brings a certificate along; a session of the same user goes on."""
    session, other = await kit.session(), await kit.session()
    kit.scripted.refresh_subject = "mallory"
    if keys == "in the header":
        kit.scripted.encode_id_token = lambda claims: kit.scripted.sign(claims, x5c=["M" * 1600])
    if keys == "away":
        kit.scripted.script("jwks", *[Answer(status=503)] * 10)
    with pytest.raises(InvalidTokenError):
        await kit.refresher.fresh(session, min_ttl=30)
    await kit.refresher.close(5.0)
    assert await kit.store.find(session.id) is None
    assert kit.heard.ended == [(session.id, "revoked")]
    assert kit.heard.changed == []
    assert [kit.scripted.calls(endpoint) for endpoint in ("jwks", "userinfo")] == [[], []]
    assert (await kit.row(other)) == other


async def test_userinfo_about_another_subject_ends_the_session(kit: Kit) -> None:
    """SEC-27: where the refresh brought no ID token, userinfo says whose access token it is; where it names nobody, or
    does not come, what was known stays."""
    session = await kit.session()
    for answer in (Answer(status=500), Answer(change={"sub": None}), Answer(change={"sub": "mallory"})):
        kit.clock.advance(ENRICH_INTERVAL)
        kit.scripted.script("token", Answer(change={"id_token": None}))
        kit.scripted.script("userinfo", answer)
        before = await kit.row(session)
        await kit.settled(before)
        if answer.change.get("sub") is None:
            assert (await kit.row(session)).claims == before.claims
    assert await kit.store.find(session.id) is None
    assert kit.heard.ended == [(session.id, "revoked")]


async def test_without_a_refresh_token_the_user_is_needed_at_expiry(kit: Kit) -> None:
    """Reason `token_expired`; until then nothing is done."""
    now = kit.clock.time()
    session = await kit.session(refresh_token=None, issued_at=now - 100, expires_at=now + 50)
    assert (await kit.refresher.fresh(session, min_ttl=60)).token_version == 1
    kit.clock.advance(51)
    with pytest.raises(ReauthorizationRequiredError):
        await kit.refresher.fresh(session, min_ttl=1)
    row = await kit.row(session)
    assert (row.state, row.reauth_reason) == (SessionState.REAUTHORIZATION, "token_expired")
    assert not kit.scripted.calls("token")


async def test_while_refreshing_fails_a_valid_token_is_still_given(kit: Kit) -> None:
    """Only an expired one gives 503 with Retry-After."""
    now = kit.clock.time()
    session = await kit.session(issued_at=now - 280, expires_at=now + 20)
    kit.scripted.script("token", *[Answer(status=503, headers={"Retry-After": "60"})] * 2)
    assert (await kit.refresher.fresh(session, min_ttl=30)).token_version == 1
    kit.clock.advance(21)
    with pytest.raises(ProviderUnavailableError) as error:
        await kit.refresher.fresh(session, min_ttl=30)
    assert 30 <= error.value.retry_after <= 61
    assert len(kit.scripted.calls("token")) == 1
