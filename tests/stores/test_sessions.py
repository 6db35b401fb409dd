"""What every session store promises of sessions, credentials, records and the change feed."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from typing import Any

import pytest

from tests.stores.backends import Backend, Heard, make_credential, make_session, make_token_set
from tornado_sse_auth.identity import RefreshState, Secret, Session, SessionState
from tornado_sse_auth.stores import (
    ChangeKind,
    KeptRecord,
    MemorySessionStore,
    SessionChange,
    SessionStore,
    Trimmed,
    VersionConflict,
    memory_records,
    mongo,
)
from tornado_sse_auth.testing import ManualClock, RecordingMetrics


async def found(store: SessionStore, session_id: str = "s1") -> Session:
    session = await store.find(session_id)
    assert session is not None
    return session


async def test_a_session_comes_back_as_it_was_stored(backend: Backend, store: SessionStore) -> None:
    """Every field, by every key; nothing else is found."""
    reauth = Secret.random()
    waiting = {"state": SessionState.REAUTHORIZATION, "reauth": reauth, "reauth_reason": "token_expired"}
    session = make_session(backend.clock, **waiting)
    await store.insert(session)
    other = await backend.open()
    for same in (
        await other.find("s1"),
        await other.find_by_credential(session.credentials[0].digest),
        await other.find_by_reauth(reauth.digest()),
    ):
        assert same == session
        assert same.claims == session.claims
    assert await other.find_by_user(session.user_id) == [session]
    assert [one async for one in other.find_by_client(session.grants[0].client_id)] == [session]
    assert [one async for one in other.find_by_client("c2")] == []
    assert await other.find("s2") is None
    assert await other.find_by_credential(os.urandom(32)) is None
    assert await other.find_by_reauth(os.urandom(32)) is None
    assert await other.find_by_user("u2") == []
    await store.ping()
    assert store.feed_alive


async def test_all_sessions_of_a_client_are_found(
    backend: Backend, store: SessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many have expired, and are still there or cannot be read: who ends a client's grants comes to all."""
    monkeypatch.setattr(mongo, "CLIENT_PAGE", 2)
    soon = backend.clock.time() + 1
    dead = [make_session(backend.clock, f"{number} dead", expires_at=soon) for number in range(3)]
    odd = [make_session(backend.clock, f"{number} odd") for number in range(3, 6)]
    good = [make_session(backend.clock, f"{number} good") for number in range(6, 9)]
    for session in [*dead, *odd, *good]:
        await store.insert(session)
    unreadable = [session for session in odd if await backend.damage(session.id)]
    backend.clock.advance(2)
    store.metrics = metrics = RecordingMetrics()
    found = []
    async for session in store.find_by_client(good[0].grants[0].client_id):
        found.append(session)
        await store.delete(session.id)
    assert sorted(found, key=lambda session: session.id) == [one for one in [*odd, *good] if one not in unreadable]
    assert metrics.counters.get("session.unreadable", 0) == len(unreadable)


async def test_a_bare_session_comes_back_too(backend: Backend, store: SessionStore) -> None:
    """Two without credentials do not collide; what looks like an operator is text."""
    empty: dict[str, Any] = {
        "credentials": (),
        "grants": (),
        "token_set": None,
        "subscription": None,
        "claims": {},
        "sid": None,
    }
    sessions = [make_session(backend.clock, name, user_id="$user_id", client="$$NOW", **empty) for name in ("s1", "s2")]
    for session in sessions:
        await store.insert(session)
    assert sorted(await store.find_by_user("$user_id"), key=lambda session: session.id) == sessions
    assert (await store.update(sessions[0])).user_id == "$user_id"
    assert (await found(store)).client == "$$NOW"


async def test_ids_and_credentials_are_taken_once(backend: Backend, store: SessionStore) -> None:
    first = make_session(backend.clock)
    await store.insert(first)
    with pytest.raises(VersionConflict):
        await store.insert(make_session(backend.clock, "s1"))
    with pytest.raises(VersionConflict):
        await store.insert(make_session(backend.clock, "s2", credentials=first.credentials))
    second = make_session(backend.clock, "s3")
    await store.insert(second)
    with pytest.raises(VersionConflict):
        await store.update(replace(second, credentials=first.credentials))
    assert await store.find_by_credential(first.credentials[0].digest) == first
    assert await store.find("s2") is None


async def test_a_write_needs_the_version_it_was_based_on(backend: Backend, store: SessionStore) -> None:
    session = make_session(backend.clock)
    await store.insert(session)
    changes: dict[str, Any] = {
        "scopes": frozenset({"c"}),
        "claims": {"$set": 1},
        "subscription": None,
        "expires_at": backend.clock.time() + 300,
        "credentials": (make_credential(backend.clock, parent=session.credentials[0].digest),),
    }
    stored = await store.update(replace(session, **changes))
    assert stored == replace(session, version=2, **changes)
    assert await found(store) == stored
    assert await store.find_by_credential(session.credentials[0].digest) is None
    with pytest.raises(VersionConflict):
        await store.update(session)
    with pytest.raises(VersionConflict):
        await store.update(make_session(backend.clock, "gone"))
    results = await asyncio.gather(*(store.update(stored) for _ in range(5)), return_exceptions=True)
    assert sorted(type(result).__name__ for result in results) == ["Session", *["VersionConflict"] * 4]


async def test_a_write_leaves_alone_what_others_move(backend: Backend, store: SessionStore) -> None:
    """`refresh`, `last_seen` and `idle_expires_at` are the row's; a new token set clears the lease of the old."""
    session = make_session(backend.clock)
    await store.insert(session)
    now = backend.clock.time()
    await store.touch("s1", now + 10, now + 600)
    await store.touch("s1", now + 5, now + 550)
    leased = await store.take_lease("s1", owner="p1", token_version=1, intent=b"i", duration=15)
    stored = await store.update(replace(session, client="wget", refresh=RefreshState(fence=9), last_seen=0.0))
    assert (stored.last_seen, stored.idle_expires_at, stored.client) == (now + 10, now + 600, "wget")
    assert (stored.version, stored.refresh) == (2, leased.session and leased.session.refresh)
    renewed = replace(stored, token_set=make_token_set(backend.clock, "2"), token_version=2)
    assert (await store.update(renewed)).refresh == RefreshState(fence=1)


async def test_a_session_ends_at_the_earlier_of_its_two_times(backend: Backend, store: SessionStore) -> None:
    """SEC-57: expired counts as ended before it is removed; touching moves the idle time only."""
    session = make_session(backend.clock, reauth=Secret.random())
    assert session.reauth is not None
    await store.insert(session)
    now = backend.clock.time()
    backend.clock.advance(499.999)
    assert await store.find("s1") == session
    await store.touch("s1", now + 499, now + 5000)
    backend.clock.advance(500)
    assert (await found(store)).ends_at == now + 1000
    backend.clock.advance(0.001)
    assert await store.find("s1") is None
    assert await store.find_by_credential(session.credentials[0].digest) is None
    assert await store.find_by_reauth(session.reauth.digest()) is None
    assert await store.find_by_user(session.user_id) == []
    assert await store.save_refresh(session, spent_version=1) is None
    with pytest.raises(VersionConflict):
        await store.update(session)
    assert await store.delete("s1") is False


async def test_what_was_ended_is_gone_by_every_key(backend: Backend, store: SessionStore) -> None:
    sessions = [
        make_session(backend.clock, f"s{number}", created_at=backend.clock.time() - number, reauth=Secret.random())
        for number in range(4)
    ]
    for session in sessions:
        await store.insert(session)
    assert [session.id for session in await store.find_by_user(sessions[0].user_id)] == ["s3", "s2", "s1", "s0"]
    assert await store.delete("s1") is True
    assert await store.delete("s1") is False
    assert await store.find_by_credential(sessions[1].credentials[0].digest) is None
    assert await store.delete_by_user(sessions[0].user_id) == ["s3", "s2", "s0"]
    assert await store.delete_by_user(sessions[0].user_id) == []
    for session in sessions:
        assert session.reauth is not None
        assert await store.find_by_reauth(session.reauth.digest()) is None


async def test_the_providers_names_find_sessions(backend: Backend, store: SessionStore) -> None:
    """By its session id, and by issuer and subject, which follow the claims; only sessions that still live."""
    alice: dict[str, Any] = {"iss": "https://i.example", "sub": "alice"}
    first = make_session(backend.clock, "s1", claims=alice, sid="a", created_at=backend.clock.time() - 1)
    second = make_session(backend.clock, "s2", claims=alice, sid="b")
    foreign = make_session(backend.clock, "s3", claims=alice | {"iss": "https://other.example"}, sid="a")
    plain = make_session(backend.clock, "s4", claims={"sub": "alice"}, sid=None)
    for session in (second, first, foreign, plain):
        await store.insert(session)
    other = await backend.open()
    assert [session.id for session in await other.find_by_sid("a")] == ["s1", "s3"]
    assert await other.find_by_sid("c") == []
    assert await other.find_by_subject("https://i.example", "alice") == [first, second]
    assert await other.find_by_subject("https://i.example", "bob") == []
    renamed = await store.update(replace(second, claims=alice | {"sub": "bob"}, sid="c"))
    assert await other.find_by_subject("https://i.example", "bob") == await other.find_by_sid("c") == [renamed]
    await store.delete("s1")
    assert await other.find_by_subject("https://i.example", "alice") == []
    assert [session.id for session in await other.find_by_sid("a")] == ["s3"]
    backend.clock.advance(2000)
    assert await other.find_by_sid("a") == []


async def test_changes_are_told_to_every_process(backend: Backend, store: SessionStore) -> None:
    """New versions and endings, in the row's order; not who was seen, nor who holds a lease."""
    session = make_session(backend.clock)
    other = await backend.open()
    heard = Heard()
    stop = other.subscribe(heard)

    def fail(change: SessionChange) -> None:
        raise RuntimeError("a listener that fails disturbs nobody")

    other.subscribe(fail)
    await store.insert(session)
    now = backend.clock.time()
    await store.touch("s1", now + 1, now + 600)
    taken = await store.take_lease("s1", owner="p1", token_version=1, intent=b"i", duration=15)
    assert await store.renew_lease("s1", 1, 15)
    assert taken.session is not None
    await store.release_lease("s1", 1, taken.session.refresh)
    await store.update(await found(store))
    await store.delete("s1")
    changed, ended = SessionChange(ChangeKind.CHANGED, "s1"), SessionChange(ChangeKind.ENDED, "s1")
    assert await heard.until(lambda news: ended in news) == [changed, ended]
    stop()
    await store.insert(make_session(backend.clock, "s2"))
    last = Heard()
    other.subscribe(last)
    await store.delete("s2")
    await last.until(bool)
    assert len(heard.news) == 2


async def test_a_record_is_taken_once(backend: Backend, store: SessionStore) -> None:
    """Of ten takers one gets it; another kind, another digest, an expired one: nothing."""
    digest, value = os.urandom(32), {"state": "$x", "n": [1, None]}
    ends = backend.clock.time() + 60
    await store.records.put("sign_in", digest, value, ends)
    assert await store.records.take("code", digest) is None
    assert await store.records.take("sign_in", os.urandom(32)) is None
    taken = await asyncio.gather(*(store.records.take("sign_in", digest) for _ in range(10)))
    assert [record for record in taken if record is not None] == [value]
    await store.records.put("sign_in", digest, value, ends)
    await store.records.put("sign_in", digest, {"second": True}, ends)
    assert await store.records.take("sign_in", digest) == {"second": True}
    await store.records.put("sign_in", digest, value, ends)
    backend.clock.advance(60)
    assert await store.records.take("sign_in", digest) is None


async def test_a_kept_record_is_changed_by_compare_and_set(backend: Backend, store: SessionStore) -> None:
    """Of ten who write on one version one succeeds; version 0 means that nothing is there; what has expired is not."""
    other = (await backend.open()).kept
    kept, now = store.kept, backend.clock.time()
    value = {"name": "$x", "n": [1, None]}
    assert await kept.get("client", "c1") is None
    assert not await kept.replace("client", "c1", value, now + 60, version=1)
    made = await asyncio.gather(*(kept.replace("client", "c1", {"n": n}, now + 60, version=0) for n in range(10)))
    assert made.count(True) == 1
    await kept.put("client", "c1", value, now + 60)
    assert await other.get("client", "c1") == KeptRecord(value, 2, now + 60)
    assert await other.get("session", "c1") is None
    changed = await asyncio.gather(
        *(where.replace("client", "c1", {"n": n}, now + 90, version=2) for where in (kept, other) for n in range(5))
    )
    assert changed.count(True) == 1
    record = await kept.get("client", "c1")
    assert record is not None
    assert (record.value, record.version, record.expires_at) == ({"n": changed.index(True) % 5}, 3, now + 90)
    backend.clock.advance(90)
    assert await kept.get("client", "c1") is None
    assert not await kept.replace("client", "c1", value, now + 200, version=3)
    assert not await kept.delete("client", "c1")
    assert await kept.replace("client", "c1", value, now + 200, version=0)
    assert await other.delete("client", "c1")
    assert await kept.get("client", "c1") is None


async def test_no_kept_record_pushes_out_one_of_another_sort(monkeypatch: pytest.MonkeyPatch) -> None:
    """SEC-08: in memory each sort has a ceiling of its own, however many kinds, such as users, it has."""
    monkeypatch.setattr(memory_records, "MAX_RECORDS", 5)
    clock = ManualClock()
    kept, now = MemorySessionStore(clock=clock).kept, clock.time()
    await kept.put("logout", "mark", {}, now + 60)
    for number in range(20):
        await kept.put(f"mcp-session:{number}", "s", {}, now + 1000 + number)
    assert await kept.get("logout", "mark") is not None
    found = [await kept.get(f"mcp-session:{number}", "s") is not None for number in range(20)]
    assert found == [False] * 15 + [True] * 5


async def test_kept_records_have_a_ceiling(backend: Backend, store: SessionStore) -> None:
    """What expires soonest goes first; what expires late stays, whatever the ceiling; other kinds do not count."""
    kept, now = store.kept, backend.clock.time()
    for number in range(6):
        await kept.put("client", f"c{number}", {}, now + (60 if number % 2 else 9000) + number)
    await kept.put("session", "s", {}, now + 60)
    assert await kept.trim("client", keep=6, expiring_before=now + 100) == Trimmed(6)
    assert await kept.trim("client", keep=5, expiring_before=now + 100) == Trimmed(5, ("c1",))
    assert [await kept.get("client", f"c{number}") is not None for number in range(6)] == [True, False, *[True] * 4]
    backend.clock.advance(63)
    assert await kept.trim("client", keep=2, expiring_before=now + 100) == Trimmed(3, ("c5",))
    assert [await kept.get("client", f"c{number}") is not None for number in range(6)] == [True, False] * 3
    assert await kept.trim("client", keep=0, expiring_before=now + 9003) == Trimmed(1, ("c0", "c2"))
