"""Rotating the encryption keys under stored values: what is counted, what is sealed again, and what nobody notices."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from typing import Any

from pymongo import MongoClient

from tests.stores.backends import Backend, Heard, MongoBackend, make_session, make_token_set
from tornado_sse_auth.identity import Secret, SessionState
from tornado_sse_auth.sealing import Keyring
from tornado_sse_auth.stores import ChangeKind, MongoSessionStore, SealingKeys, SessionChange
from tornado_sse_auth.stores.mongo_sealed import Resealed

OLD, NEW = os.urandom(32), os.urandom(32)
OLD_ID, NEW_ID = (Keyring([key]).sealing_key_id.hex() for key in (OLD, NEW))
DAY = 86_400


async def with_ring(mongo: MongoBackend, *keys: bytes) -> MongoSessionStore:
    mongo.keyring = Keyring(keys)
    return await mongo.open()


async def resealed(store: MongoSessionStore) -> Resealed:
    return ([Resealed()] + [so_far async for so_far in store.sealed.reseal()])[-1]


async def test_where_nothing_is_sealed_no_key_is_needed(backend: Backend) -> None:
    store = await backend.open()
    keys = await store.sealing_keys()
    assert (keys.outdated, keys.lost, keys.dispensable, dict(keys.values)) == (0, 0, (), {})


async def test_an_old_key_is_counted_until_nothing_needs_it(mongo: MongoBackend) -> None:
    """SEC-59: a refresh seals with the new key, the command does the rest; no version changes, no listener hears."""
    old = await with_ring(mongo, OLD)
    waiting = {"state": SessionState.REAUTHORIZATION, "reauth": Secret.random(), "reauth_reason": "token_expired"}
    sessions = [make_session(mongo.clock, f"s{n}") for n in range(3)] + [make_session(mongo.clock, "s3", **waiting)]
    for session in sessions:
        await old.insert(session)
    digest, later = os.urandom(32), mongo.clock.time() + DAY
    await old.records.put("sign_in", digest, {"n": 1}, later)
    await old.kept.put("client", "a:b", {"n": 2}, later)
    assert await old.sealing_keys() == SealingKeys(ring=(OLD_ID,), values={OLD_ID: 7})

    both = await with_ring(mongo, NEW, OLD)
    heard = Heard()
    both.subscribe(heard)
    assert await both.sealing_keys() == SealingKeys(ring=(NEW_ID, OLD_ID), values={OLD_ID: 7})
    fresh = replace(sessions[0], token_set=make_token_set(mongo.clock, "2"))
    assert await both.save_refresh(fresh, spent_version=1) is not None
    renamed = await both.update(replace(sessions[1], client="wget"))
    keys = await both.sealing_keys()
    assert (keys.outdated, keys.lost, keys.dispensable) == (5, 0, ())
    assert dict(keys.values) == {OLD_ID: 5, NEW_ID: 2}

    assert await resealed(both) == Resealed(done=5)
    assert await resealed(both) == Resealed()
    keys = await both.sealing_keys()
    assert (keys.outdated, keys.lost, keys.dispensable) == (0, 0, (OLD_ID,))

    new = await with_ring(mongo, NEW)
    assert await new.find("s2") == sessions[2]
    assert await new.find("s3") == sessions[3]
    assert await new.find("s1") == renamed
    assert await new.records.take("sign_in", digest) == {"n": 1}
    kept = await new.kept.get("client", "a:b")
    assert kept is not None
    assert (kept.value, kept.version) == ({"n": 2}, 1)
    await new.delete("s2")
    told = await heard.until(lambda news: SessionChange(ChangeKind.ENDED, "s2") in news)
    assert [change.session_id for change in told] == ["s0", "s1", "s2"]


async def test_keys_are_found_without_reading_all_values(mongo: MongoBackend) -> None:
    """The server jumps from key to key in the index, however many values there are."""
    store = await with_ring(mongo, OLD)
    for n in range(100):
        await store.insert(make_session(mongo.clock, f"s{n}"))

    def explain() -> dict[str, Any]:
        with MongoClient[dict[str, Any]](mongo.uri) as client:
            query = {"distinct": "sessions", "key": "token_set_key", "query": {"token_set_key": {"$gt": ""}}}
            return dict(client[mongo.name].command("explain", query, verbosity="executionStats"))["executionStats"]

    assert (await asyncio.to_thread(explain))["totalKeysExamined"] <= 2


async def test_what_no_key_opens_is_counted_and_left_alone(mongo: MongoBackend) -> None:
    """A key that is not in the ring, and a value that was moved here from another session."""
    old = await with_ring(mongo, OLD)
    for name in ("s1", "s2"):
        await old.insert(make_session(mongo.clock, name))
    stranger = await with_ring(mongo, NEW)
    assert (await stranger.sealing_keys()).lost == 2
    assert await resealed(stranger) == Resealed()

    both = await with_ring(mongo, NEW, OLD)
    other = (await asyncio.to_thread(row, mongo, "s2"))["token_set"]
    await mongo.change("s1", {"$set": {"token_set": other}})
    assert await resealed(both) == Resealed(done=1, failed=1)
    assert (await both.sealing_keys()).outdated == 1
    assert (await asyncio.to_thread(row, mongo, "s1"))["token_set"] == other


async def test_sealing_again_goes_on_beside_refreshes(mongo: MongoBackend) -> None:
    """What is refreshed meanwhile keeps the newer token set; every value ends under the new key."""
    old = await with_ring(mongo, OLD)
    count = 450
    for n in range(count):
        await old.insert(make_session(mongo.clock, f"s{n}"))
    both = await with_ring(mongo, NEW, OLD)

    async def refresh(name: str) -> None:
        session = await both.find(name)
        assert session is not None
        token_set = make_token_set(mongo.clock, f"of {name}")
        assert await both.save_refresh(replace(session, token_set=token_set), spent_version=1) is not None

    async def refresh_all() -> None:
        for name in names:
            await refresh(name)

    names = [f"s{n}" for n in range(0, count, 3)]
    await asyncio.gather(resealed(both), refresh_all())
    assert (await both.sealing_keys()).dispensable == (OLD_ID,)
    new = await with_ring(mongo, NEW)
    for name in names:
        session = await new.find(name)
        assert session is not None
        assert session.token_set == make_token_set(mongo.clock, f"of {name}")


def row(mongo: MongoBackend, session_id: str) -> dict[str, Any]:
    with MongoClient[dict[str, Any]](mongo.uri) as client:
        found = client[mongo.name]["sessions"].find_one({"_id": session_id})
    assert found is not None
    return found
