"""Who may spend a refresh token, and what becomes of the result. Times are judged by the store's clock."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from tests.stores.backends import Backend, make_session, make_token_set
from tornado_sse_auth.identity import RefreshState, Secret, Session, SessionState
from tornado_sse_auth.stores import Lease, LeaseRefused, SessionStore

INTENT = b"i" * 32


@pytest.fixture
async def session(backend: Backend, store: SessionStore) -> Session:
    """A stored session."""
    session = make_session(backend.clock)
    await store.insert(session)
    return session


async def take(store: SessionStore, owner: str = "p1", *, duration: float = 15, seen: int | None = None) -> Lease:
    taken = await store.take_lease("s1", owner=owner, token_version=1, intent=INTENT, duration=duration, seen=seen)
    assert isinstance(taken, Lease)
    return taken


async def refused(store: SessionStore, owner: str = "p2", *, version: int = 1, seen: int | None = None) -> LeaseRefused:
    taken = await store.take_lease("s1", owner=owner, token_version=version, intent=INTENT, duration=15, seen=seen)
    assert isinstance(taken, LeaseRefused)
    return taken


async def test_one_of_many_gets_the_lease(backend: Backend, store: SessionStore, session: Session) -> None:
    other = await backend.open()
    taken = await asyncio.gather(
        *(
            one.take_lease("s1", owner=f"p{number}", token_version=1, intent=INTENT, duration=15)
            for number in range(10)
            for one in (store, other)
        )
    )
    leases = [one for one in taken if isinstance(one, Lease)]
    assert len(leases) == 1
    row = leases[0].session.refresh
    assert (leases[0].fence, leases[0].reattempt) == (1, False)
    assert (row.fence, row.intent, row.presented) == (1, INTENT, 1)
    for one in taken:
        assert isinstance(one, Lease) or (one.session == leases[0].session and not one.expired)


async def test_only_a_row_that_is_active_with_that_token_is_leased(store: SessionStore, session: Session) -> None:
    gone = await store.take_lease("gone", owner="p1", token_version=1, intent=INTENT, duration=15)
    assert gone == LeaseRefused(session=None, expired=True)
    assert await refused(store, version=2) == LeaseRefused(session=session, expired=True)
    waiting = replace(session, reauth=Secret.random(), reauth_reason="invalid_grant")
    row = await store.require_reauthorization(waiting, spent_version=1)
    assert await refused(store) == LeaseRefused(session=row, expired=True)


async def test_a_lease_has_ended_at_its_very_limit(store: SessionStore, session: Session) -> None:
    """REL-03: at `until` itself no lease is running; renewing makes it run again."""
    lease = await take(store, duration=0)
    assert (await refused(store)).expired is True
    assert await store.renew_lease("s1", lease.fence, 15) is True
    assert (await refused(store)).expired is False


async def test_a_dead_holder_is_followed_only_by_who_watched(
    backend: Backend, store: SessionStore, session: Session
) -> None:
    """REL-03, REL-04: its token may have been spent, so it is presented once more, and only once."""
    await take(store)
    assert (await refused(store, seen=1)).expired is False
    await backend.end_lease("s1")
    unwatched = await refused(store)
    assert unwatched.expired is True
    assert unwatched.session is not None
    assert unwatched.session.refresh.fence == 1
    assert (await refused(store, seen=2)).expired is True
    second = await take(store, "p2", seen=1)
    assert (second.fence, second.reattempt, second.session.refresh.presented) == (2, True, 2)
    assert await store.renew_lease("s1", 1, 15) is False
    await store.release_lease("s1", 1, RefreshState())
    assert (await refused(store)).expired is False
    await backend.end_lease("s1")
    assert (await refused(store, seen=2)).expired is True


async def test_a_lease_given_back(store: SessionStore, session: Session) -> None:
    """With nothing spent it is free; with an unknown outcome it is a reattempt; after that there is none."""
    lease = await take(store)
    state = RefreshState(intent=None, presented=0, not_before=5.5, failures=3)
    await store.release_lease("s1", lease.fence, replace(state, owner="p9", until=1e12, fence=77))
    row = await store.find("s1")
    assert row is not None
    assert row.refresh == replace(state, fence=1)
    assert row.version == 1
    assert await store.renew_lease("s1", lease.fence, 15) is False
    await store.release_lease("s1", lease.fence, RefreshState(failures=9))
    second = await take(store)
    assert (second.fence, second.reattempt, second.session.refresh.failures) == (2, False, 3)
    await store.release_lease("s1", 2, second.session.refresh)
    third = await take(store)
    assert (third.fence, third.reattempt, third.session.refresh.presented) == (3, True, 2)
    await store.release_lease("s1", 3, third.session.refresh)
    assert (await refused(store)).expired is True


async def test_a_result_is_written_however_late(backend: Backend, store: SessionStore, session: Session) -> None:
    """REL-03, REL-05: the lease ran out, another holds it by now: what counts is the version that was spent."""
    await take(store)
    await backend.end_lease("s1")
    await take(store, "p2", seen=1)
    fresh = replace(session, token_set=make_token_set(backend.clock, "2"), client="only tokens are written")
    saved = await store.save_refresh(fresh, spent_version=1)
    assert saved is not None
    assert saved == replace(
        session, token_set=fresh.token_set, token_version=2, version=2, refresh=RefreshState(fence=2)
    )
    assert await store.save_refresh(fresh, spent_version=1) == saved
    other = replace(fresh, token_set=make_token_set(backend.clock, "3"))
    assert await store.save_refresh(other, spent_version=1) is None
    assert await store.save_refresh(other, spent_version=0) is None
    assert await store.find("s1") == saved
    assert await store.save_refresh(replace(session, id="gone"), spent_version=1) is None


async def test_reauthorization_is_written_on_the_same_condition(
    backend: Backend, store: SessionStore, session: Session
) -> None:
    await take(store)
    waiting = replace(session, reauth=Secret.random(), reauth_reason="invalid_grant", client="not this")
    assert await store.require_reauthorization(waiting, spent_version=2) is None
    row = await store.require_reauthorization(waiting, spent_version=1)
    assert row is not None
    assert row == replace(
        session,
        state=SessionState.REAUTHORIZATION,
        reauth=waiting.reauth,
        reauth_reason="invalid_grant",
        version=2,
        refresh=RefreshState(fence=1),
    )
    assert waiting.reauth is not None
    assert await store.find_by_reauth(waiting.reauth.digest()) == row
    assert await store.require_reauthorization(waiting, spent_version=1) == row
    assert await store.require_reauthorization(replace(waiting, reauth=Secret.random()), spent_version=1) is None
    late = replace(session, token_set=make_token_set(backend.clock, "2"))
    assert await store.save_refresh(late, spent_version=1) is None
    revived = replace(row, state=SessionState.ACTIVE, reauth=None, reauth_reason=None, token_version=2)
    assert (await store.update(revived)).reauth is None
    assert await store.find_by_reauth(waiting.reauth.digest()) is None
