"""The session store where MongoDB is concerned: what lies in the database, and what happens when it fails."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any, cast

import bson
import pytest
from pymongo import MongoClient
from pymongo.database import Database

from tests.parts import mongod as mongo_parts
from tests.stores.backends import (
    MOTOR,
    PYMONGO,
    Heard,
    MongoBackend,
    connect,
    make_credential,
    make_session,
    make_token_set,
    now_clock,
)
from tornado_sse_auth.errors import ConfigurationError, StoreUnavailableError
from tornado_sse_auth.identity import RefreshState, Secret, Session, SessionState
from tornado_sse_auth.mongodb import require_replica_set
from tornado_sse_auth.sealing import Keyring
from tornado_sse_auth.stores import ChangeKind, Lease, LeaseRefused, MongoSessionStore, SessionChange
from tornado_sse_auth.testing import RecordingMetrics

# A call ends within a second; a machine at work on other things may need longer to notice.
BOUND = 10.0  # a call takes a second at most; left to the driver it would be 29
COLLECTIONS = ("sessions", "single_use_records", "kept_records")
Document = Mapping[str, Any]
Forge = Callable[[Document, Document, str], object]


@pytest.fixture(params=[MOTOR, PYMONGO])
async def frozen_mongo(
    request: pytest.FixtureRequest, own_mongod: mongo_parts.ReplicaSet
) -> AsyncIterator[MongoBackend]:
    """A store on a server that the test may freeze."""
    async with AsyncExitStack() as stack:
        yield MongoBackend(clock=now_clock(), stack=stack, uri=own_mongod.uri, name="test", driver=request.param)


async def raw(mongo: MongoBackend, do: Callable[[Database[dict[str, Any]]], Any]) -> Any:
    """What `do` finds or changes in the database itself, past the store."""

    def run() -> Any:
        with MongoClient[dict[str, Any]](mongo.uri) as client:
            return do(client[mongo.name])

    return await asyncio.to_thread(run)


async def dump(mongo: MongoBackend) -> dict[str, list[dict[str, Any]]]:
    """All documents of the database, by collection."""
    found: dict[str, list[dict[str, Any]]] = await raw(
        mongo, lambda database: {name: list(database[name].find()) for name in database.list_collection_names()}
    )
    return found


# -- what lies in the database ---------------------------------------------------------------------------------------


async def populate(store: MongoSessionStore, session: Session) -> Secret:
    """Every kind of write that leaves something behind; returns the secret of a record."""
    await store.insert(session)
    stored = await store.update(replace(session, client="wget"))
    lease = await store.take_lease(session.id, owner="p1", token_version=1, intent=b"i" * 32, duration=15)
    assert isinstance(lease, Lease)
    saved = await store.save_refresh(
        replace(stored, token_set=make_token_set(now_clock(), "renewed-token-set")), spent_version=stored.token_version
    )
    assert saved is not None
    waiting = replace(saved, reauth=Secret("reauth-value"), reauth_reason="invalid_grant")
    assert await store.require_reauthorization(waiting, spent_version=2) is not None
    state = Secret("state-value")
    await store.records.put("sign_in", state.digest(), {"verifier": "verifier-value"}, session.expires_at)
    await store.kept.put("client", "c1", {"secret": "kept-value"}, session.expires_at)
    return state


async def test_a_copy_of_the_database_has_no_secret(mongo: MongoBackend) -> None:
    """SEC-01, SEC-56: no token, credential, state, verifier or reauthorization value, plain, base64 or hexadecimal."""
    store = await mongo.open()
    credential = Secret("credential-value")
    session = make_session(
        mongo.clock,
        credentials=(replace(make_credential(mongo.clock), digest=credential.digest()),),
        token_set=make_token_set(mongo.clock, "first-token-set"),
    )
    state = await populate(store, session)
    documents = await dump(mongo)
    counts = {name: len(found) for name, found in documents.items()}
    assert counts == {"sessions": 1, "single_use_records": 1, "kept_records": 1}
    content = b"".join(bson.encode(document) for found in documents.values() for document in found)
    assert session.user_id.encode() in content
    assert documents["sessions"][0]["credentials"][0]["digest"] == hashlib.sha256(b"credential-value").digest()
    assert hashlib.sha256(b"state-value").hexdigest() in documents["single_use_records"][0]["_id"]
    secrets = [credential.reveal(), state.reveal(), "reauth-value", "verifier-value", "kept-value"]
    secrets += [f"{kind}-{name}" for kind in ("access", "refresh") for name in ("first-token-set", "renewed-token-set")]
    for secret in secrets:
        plain = secret.encode()
        # Base64 of the whole, and of a part in each of the three positions.
        encoded = [base64.b64encode(b"\0" * pad + plain)[4:-4] for pad in range(3)]
        for form in (plain, plain.hex().encode(), *encoded):
            assert form not in content, secret


async def test_every_document_says_its_schema(mongo: MongoBackend) -> None:
    store = await mongo.open()
    await populate(store, make_session(mongo.clock))
    documents = [document for found in (await dump(mongo)).values() for document in found]
    assert [document.get("schema") for document in documents] == [1, 1, 1]


async def test_a_document_of_another_schema_is_skipped(mongo: MongoBackend) -> None:
    """REL-27: it is counted, nobody else is affected, and its user can still be signed out."""
    store = await mongo.open()
    store.metrics = metrics = RecordingMetrics()
    sessions = [make_session(mongo.clock, name) for name in ("s1", "s2", "s3")]
    for session in sessions:
        await store.insert(session)
    await mongo.change("s1", {"$set": {"schema": 2}})
    await mongo.change("s2", {"$set": {"claims": 5}})
    assert [await store.find(name) for name in ("s1", "s2", "s3")] == [None, None, sessions[2]]
    assert await store.find_by_credential(sessions[0].credentials[0].digest) is None
    assert await store.find_by_user(sessions[0].user_id) == [sessions[2]]
    assert metrics.counters == {"session.unreadable": 5}
    assert sorted(await store.delete_by_user(sessions[0].user_id)) == ["s1", "s2", "s3"]
    digest = os.urandom(32)
    await store.records.put("sign_in", digest, {}, mongo.clock.time() + 60)
    await raw(mongo, lambda database: database["single_use_records"].update_one({}, {"$set": {"schema": 2}}))
    assert await store.records.take("sign_in", digest) is None
    await store.kept.put("client", "c1", {}, mongo.clock.time() + 60)
    await raw(mongo, lambda database: database["kept_records"].update_one({}, {"$set": {"schema": 2}}))
    assert await store.kept.get("client", "c1") is None


async def test_indexes_are_made_at_start(mongo: MongoBackend) -> None:
    """By every process, without harm: expiry, and a look-up for each key."""
    await asyncio.gather(mongo.open(), mongo.open())

    def indexes(database: Database[dict[str, Any]]) -> list[Any]:
        return [database[name].index_information() for name in COLLECTIONS]

    sessions, records, kept = await raw(mongo, indexes)
    for found in (sessions, records, kept):
        assert (found["ends_at"]["key"], found["ends_at"]["expireAfterSeconds"]) == ([("ends_at", 1)], 0)
    keys = {tuple(name for name, _ in index["key"]) for index in sessions.values()}
    assert keys == {
        ("_id",),
        ("ends_at",),
        ("credentials.digest",),
        ("user_id", "created_at"),
        ("reauth_digest",),
        ("sid",),
        ("grants.client_id",),
        ("subject",),
        ("token_set_key",),
        ("reauth_key",),
    }
    assert sessions["credential"]["unique"]


FORGERIES: dict[str, Forge] = {
    "another session's": lambda own, other, field: other[field],
    "another field's": lambda own, other, field: own["reauth" if field == "token_set" else "token_set"],
    "bit flipped": lambda own, other, field: own[field][:-1] + bytes([own[field][-1] ^ 1]),
    "cut": lambda own, other, field: own[field][:-1],
    "empty": lambda own, other, field: b"",
    "unknown key": lambda own, other, field: Keyring.generate().seal(b"{}", b""),
    "no bytes": lambda own, other, field: "text",
}


@pytest.mark.parametrize("forge", FORGERIES.values(), ids=list(FORGERIES))
async def test_a_sealed_value_opens_in_its_place_only(mongo: MongoBackend, forge: Forge) -> None:
    """SEC-55: not even in another session of the same user. The session stays, and its user must sign in again."""
    store = await mongo.open()
    for field in ("token_set", "reauth"):
        for state in SessionState:
            waits = state is SessionState.REAUTHORIZATION
            session, other = (
                make_session(
                    mongo.clock,
                    f"{field} {state} {number}",
                    user_id=f"{field} {state}",
                    created_at=mongo.clock.time() + number,
                    state=state,
                    reauth=Secret.random(),
                    reauth_reason="invalid_grant" if waits else None,
                )
                for number in range(2)
            )
            for one in (session, other):
                await store.insert(one)
            rows = {row["_id"]: row for row in (await dump(mongo))["sessions"]}
            forged = forge(rows[session.id], rows[other.id], field)
            await mongo.change(session.id, {"$set": {field: forged}})
            # A reauthorization that waits already goes on, if it can be read.
            keeps = waits and field == "token_set"
            expected = replace(
                session,
                token_set=None,
                state=SessionState.REAUTHORIZATION,
                reauth=session.reauth if keeps else None,
                reauth_reason="invalid_grant" if keeps else "unreadable",
            )
            assert await store.find(session.id) == expected
            assert await store.find_by_credential(session.credentials[0].digest) == expected
            assert await store.find_by_user(session.user_id) == [expected, other]
            refused = await store.take_lease(session.id, owner="p1", token_version=1, intent=b"i", duration=15)
            assert isinstance(refused, LeaseRefused)
            assert refused.session is not None
            assert refused.session.token_set is None


async def test_a_record_opens_in_its_place_only(mongo: MongoBackend) -> None:
    """SEC-55: the value of one sign-in, or of one client, is of no use to another."""
    store = await mongo.open()
    digests = [os.urandom(32), os.urandom(32)]
    for digest in digests:
        await store.records.put("sign_in", digest, {"n": digest.hex()}, mongo.clock.time() + 60)

    def move(database: Database[dict[str, Any]]) -> None:
        first, second = database["single_use_records"].find().sort("_id", 1)
        database["single_use_records"].update_one({"_id": first["_id"]}, {"$set": {"value": second["value"]}})

    await raw(mongo, move)
    forged, untouched = sorted(digests)
    assert await store.records.take("sign_in", forged) is None
    assert await store.records.take("sign_in", untouched) == {"n": untouched.hex()}
    for key in ("c1", "c2"):
        await store.kept.put("client", key, {"key": key}, mongo.clock.time() + 60)

    def move_kept(database: Database[dict[str, Any]]) -> None:
        first, second = database["kept_records"].find().sort("_id", 1)
        database["kept_records"].update_one({"_id": first["_id"]}, {"$set": {"value": second["value"]}})

    await raw(mongo, move_kept)
    record = await store.kept.get("client", "c2")
    assert await store.kept.get("client", "c1") is None
    assert record is not None
    assert record.value == {"key": "c2"}


async def test_what_no_key_opens_is_in_nobodys_way(mongo: MongoBackend) -> None:
    """SEC-55, SEC-59: a kept record that cannot be read, for its key is gone or somebody has altered it, may be made
    anew, by one; one that can be read stays, and so does what a newer version has written."""
    store, ends = await mongo.open(), mongo.clock.time() + 60
    mongo.keyring = Keyring.generate()
    other = await mongo.open()
    await store.kept.put("key", "lost", {"n": 1}, ends)
    await other.kept.put("key", "altered", {"n": 1}, ends)
    await other.kept.put("key", "newer", {"n": 1}, ends)
    await raw(mongo, lambda base: base["kept_records"].update_one({"_id": "key:altered"}, {"$set": {"value": b"x"}}))
    await raw(mongo, lambda base: base["kept_records"].update_one({"_id": "key:newer"}, {"$set": {"schema": 2}}))
    for key in ("lost", "altered"):
        assert await other.kept.get("key", key) is None
        made = await asyncio.gather(*(other.kept.replace("key", key, {"n": n}, ends, version=0) for n in range(8)))
        assert made.count(True) == 1
        record = await other.kept.get("key", key)
        assert record is not None
        assert record.value == {"n": made.index(True)}
        assert await other.kept.replace("key", key, {"n": 9}, ends, version=record.version)
    assert not await other.kept.replace("key", "newer", {"n": 2}, ends, version=0)


# -- when MongoDB fails ----------------------------------------------------------------------------------------------


async def test_a_frozen_mongod_fails_calls_in_time(
    frozen_mongo: MongoBackend, own_mongod: mongo_parts.ReplicaSet
) -> None:
    """REL-06: every kind of call, also many at once; afterwards the store and its feed go on."""
    clock = frozen_mongo.clock
    store = await frozen_mongo.open()
    session, gone = make_session(clock), make_session(clock, "gone", user_id="gone")
    digest, lease = os.urandom(32), RefreshState()
    heard = Heard()
    store.subscribe(heard)
    await store.insert(session)
    calls: list[Callable[[], Any]] = [
        lambda: store.find("s1"),
        lambda: store.find_by_credential(digest),
        lambda: store.find_by_reauth(digest),
        lambda: store.find_by_user("u"),
        lambda: store.insert(session),
        lambda: store.update(gone),
        lambda: store.touch("gone", 0.0, 0.0),
        lambda: store.delete("gone"),
        lambda: store.delete_by_user("gone"),
        lambda: store.take_lease("gone", owner="p1", token_version=1, intent=b"i", duration=15),
        lambda: store.renew_lease("gone", 1, 15),
        lambda: store.release_lease("gone", 1, lease),
        lambda: store.save_refresh(gone, spent_version=1),
        lambda: store.require_reauthorization(gone, spent_version=1),
        lambda: store.records.put("sign_in", digest, {}, clock.time() + 60),
        lambda: store.records.take("sign_in", digest),
        lambda: store.kept.get("client", "c"),
        lambda: store.kept.put("client", "c", {}, clock.time() + 60),
        lambda: store.kept.replace("client", "c", {}, clock.time() + 60, version=1),
        lambda: store.kept.delete("client", "c"),
        lambda: store.kept.trim("client", keep=1, expiring_before=clock.time()),
        lambda: store.find_by_sid("sid-1"),
        lambda: anext(store.find_by_client("c")),
        lambda: store.find_by_subject("i", "s"),
        lambda: store.ping(),
    ]
    with own_mongod.members[0].stopped():
        async with asyncio.timeout(BOUND):
            results = await asyncio.gather(*(call() for call in calls * 3), return_exceptions=True)
        assert [result for result in results if not isinstance(result, StoreUnavailableError)] == []
        clock.advance(5)
        assert not store.feed_alive
    async with asyncio.timeout(20):
        while True:
            try:
                stored = await store.update(session)
                break
            except StoreUnavailableError:
                continue
    assert await store.find("s1") == stored
    changed = SessionChange(ChangeKind.CHANGED, "s1")
    assert await heard.until(lambda news: changed in news, 20) == [changed]
    assert store.feed_alive


async def test_a_feed_that_was_lost_is_told(mongo: MongoBackend) -> None:
    """REL-08: its resume point is gone with the collection; what comes later is heard again."""
    store = await mongo.open()
    heard = Heard()
    store.subscribe(heard)
    await raw(mongo, lambda database: database["sessions"].drop())
    lost = SessionChange(ChangeKind.LOST)
    assert await heard.until(bool) == [lost]
    await store.insert(make_session(mongo.clock))
    await store.delete("s1")
    assert await heard.until(lambda news: len(news) == 2) == [lost, SessionChange(ChangeKind.ENDED, "s1")]


async def test_a_standalone_mongod_is_refused(standalone_mongod: mongo_parts.Mongod) -> None:
    """It has no change streams; the error names what to do."""
    async with AsyncExitStack() as stack:
        for driver in (MOTOR, PYMONGO):
            database = connect(stack, driver, standalone_mongod.uri, "test")
            store = MongoSessionStore(database, Keyring.generate())
            with pytest.raises(ConfigurationError, match="--replSet"):
                await store.start()
            await store.close()


async def test_a_server_that_is_too_old_is_refused() -> None:
    """4.4 knows no `$setWindowFields`; without the look, it would fail in the middle of a replay."""

    class Old:
        async def command(self, name: str) -> dict[str, object]:
            return {"setName": "rs0", "maxWireVersion": 9}

    with pytest.raises(ConfigurationError, match=r"5\.0 or later"):
        await require_replica_set(cast(Any, Old()))
