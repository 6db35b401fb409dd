"""Sealed values over time: what replaces them, and what becomes of them when keys do."""

from __future__ import annotations

import base64
import dataclasses
import json
import secrets
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from pymongo import AsyncMongoClient

from tests.parts.mongod import ExternalMongo, ReplicaSet
from tests.parts.scripted_provider import ScriptedProvider
from tests.scenarios.server import Running, serve
from tornado_sse_auth import (
    ConfigurationError,
    CredentialKind,
    Keyring,
    MongoSessionStore,
    OAuthProvider,
    Secret,
    Session,
    SessionState,
    TokenSet,
)
from tornado_sse_auth.sealing import HEADER_BYTES, NONCE_BYTES, UnsealError, context


def test_keys_are_checked_when_they_are_read() -> None:
    """SEC-01, SEC-59: of the right length, not zero, not twice; what is wrong is said by its place in the list, and no
    error shows a key."""
    key = secrets.token_bytes(32)
    good, short, zero = (base64.b64encode(raw).decode() for raw in (key, key[:31], bytes(32)))
    for text, says in (
        ("", "key 1 must be 32 bytes"),
        (f"{good},", "key 2 must be 32 bytes"),
        (short, "key 1 must be 32 bytes"),
        (base64.b64encode(key + b"x").decode(), "key 1 must be 32 bytes"),
        (f"{good},{zero}", "key 2 is all zero"),
        (f"{good}, {good}", "key 2 is given twice"),
        (f"{good[:20]}!{good[20:]}", "key 1 is not base64"),
    ):
        with pytest.raises(ConfigurationError, match=says) as refused:
            Keyring.from_base64(text)
        shown = "".join(traceback.format_exception(refused.value))
        assert not [word for word in text.replace("!", ",").split(",") if word.strip() and word.strip() in shown]
    with pytest.raises(ConfigurationError, match="at least one"):
        Keyring([])
    forms = (good, good.rstrip("="), base64.urlsafe_b64encode(key).decode(), f" {good} ")
    assert {Keyring.from_base64(form).key_ids for form in forms} == {Keyring([key]).key_ids}


def test_no_nonce_comes_twice() -> None:
    """SEC-55: a million values sealed under one key and for one place."""
    keyring, place = Keyring.generate(), context("token_set", "s", "u")
    nonces = {keyring.seal(b"", place)[HEADER_BYTES : HEADER_BYTES + NONCE_BYTES] for _ in range(1_000_000)}
    assert len(nonces) == 1_000_000


async def test_what_was_replaced_is_gone(mongod: ReplicaSet | ExternalMongo, database_name: str) -> None:
    """SEC-55, SEC-56: after a refresh no field of the database holds the old token set, sealed or not; after a new
    sign-in none holds the value of the old authorization URL; after a revocation nothing of the session is left."""
    key = secrets.token_bytes(32)
    async with AsyncMongoClient[dict[str, Any]](mongod.uri) as client:
        database = client[database_name]
        store = MongoSessionStore(database, Keyring([key]))
        await store.start()
        try:
            session = await store_session(store, "old")
            sealed = (await documents(database))[0]["token_set"]
            saved = await store.save_refresh(
                dataclasses.replace(session, token_set=token_set_of("new")), spent_version=session.token_version
            )
            assert saved is not None
            (document,) = await documents(database)
            assert document["token_set"] != sealed
            assert opened(document, key) == {"token_set": "new"}
            wanted = dataclasses.replace(saved, reauth=Secret("canary-reauth-value"), reauth_reason="refresh_rejected")
            needs = await store.require_reauthorization(wanted, spent_version=saved.token_version)
            assert needs is not None
            assert set(opened((await documents(database))[0], key)) == {"token_set", "reauth"}
            again = dataclasses.replace(
                needs, state=SessionState.ACTIVE, reauth=None, reauth_reason=None, token_set=token_set_of("newest")
            )
            await store.update(dataclasses.replace(again, token_version=needs.token_version + 1))
            (document,) = await documents(database)
            assert opened(document, key) == {"token_set": "newest"}
            assert not {"reauth", "reauth_digest"} & document.keys()
            await store.delete(session.id)
            assert await documents(database) == []
        finally:
            await store.close()


@asynccontextmanager
async def application(scripted: ScriptedProvider, database: Any, *keys: bytes) -> AsyncIterator[Running]:
    """One that runs with these keys."""
    provider = OAuthProvider(issuer=scripted.issuer, client_id=scripted.client_id, client_secret=scripted.client_secret)
    async with serve(MongoSessionStore(database, Keyring(keys)), provider) as app:
        yield app


async def signed_in(app: Running, scripted: ScriptedProvider, user: str) -> str:
    """A bearer of a new session, two thirds of the way to the end of its upstream token."""
    tokens, now = scripted.issue(user), app.auth.clock.time()
    _, secret = await app.auth.sessions.create(
        user_id=user,
        kind=CredentialKind.BEARER,
        token_set=TokenSet(
            access_token=Secret(tokens["access_token"]),
            refresh_token=Secret(tokens["refresh_token"]),
            issued_at=now - 400,
            expires_at=now + 200,
        ),
    )
    return secret.reveal()


async def upstream(app: Running, bearer: str, min_ttl: float = 0.0) -> httpx.Response:
    """Ask for the upstream token."""
    async with app.client(headers={"Authorization": f"Bearer {bearer}"}) as caller:
        return await caller.get("/upstream", params={"min_ttl": min_ttl})


async def test_keys_are_rotated_under_running_sessions(mongod: ReplicaSet | ExternalMongo, database_name: str) -> None:
    """SEC-59: a new first key opens what the old one sealed and seals anew on the next write; once the old key is
    dropped, only a session that was never written since needs its user again: 401 with where to sign in, and no 500."""
    old, new = secrets.token_bytes(32), secrets.token_bytes(32)
    async with ScriptedProvider() as scripted, AsyncMongoClient[dict[str, Any]](mongod.uri) as client:
        database = client[database_name]
        async with application(scripted, database, old) as app:
            refreshed, forgotten = [await signed_in(app, scripted, user) for user in ("refreshed", "forgotten")]
        async with application(scripted, database, new, old) as app:
            before = await upstream(app, refreshed)
            after = await upstream(app, refreshed, min_ttl=10_000)  # less than half of its life is left: refreshes
            assert (before.status_code, after.status_code) == (200, 200)
            assert before.json() != after.json()
            assert (await upstream(app, forgotten)).status_code == 200
        async with application(scripted, database, new) as app:
            assert (await upstream(app, refreshed)).json() == after.json()
            refused = await upstream(app, forgotten)
            assert (refused.status_code, refused.json()["error"]) == (401, "authorization_required")
            assert "/auth/login?reauth=" in refused.json()["authorization_url"]


@pytest.mark.parametrize("move", ["the value", "the user", "the whole session"])
async def test_a_token_set_that_was_moved_opens_for_nobody(
    mongod: ReplicaSet | ExternalMongo, database_name: str, move: str
) -> None:
    """SEC-02, SEC-55: who can write to the database gives another user's tokens to mallory: puts them into mallory's
    session, calls their session mallory's, or copies all of it under mallory's credential. Mallory must sign in again,
    nothing is presented to the provider, and whose tokens they are keeps them."""
    key = secrets.token_bytes(32)
    async with ScriptedProvider() as scripted, AsyncMongoClient[dict[str, Any]](mongod.uri) as client:
        sessions = client[database_name]["sessions"]
        async with application(scripted, client[database_name], key) as app:
            alice, mallory = [await signed_in(app, scripted, user) for user in ("alice", "mallory")]
            token = (await upstream(app, alice)).json()["token"]
        hers, his = [await sessions.find_one({"user_id": user}) for user in ("alice", "mallory")]
        assert hers is not None
        assert his is not None
        own = {name: his[name] for name in ("_id", "user_id", "credentials")}
        if move == "the user":
            await sessions.update_one({"_id": hers["_id"]}, {"$set": {"user_id": "mallory"}})
        elif move == "the value":
            await sessions.update_one({"_id": his["_id"]}, {"$set": {"token_set": hers["token_set"]}})
        else:
            await sessions.replace_one({"_id": his["_id"]}, {**hers, **own})
        async with application(scripted, client[database_name], key) as app:
            thief = alice if move == "the user" else mallory
            for min_ttl in (0.0, 10_000.0):
                refused = await upstream(app, thief, min_ttl)
                assert (refused.status_code, refused.json()["error"]) == (401, "authorization_required")
                assert token not in refused.text
            assert scripted.calls("token") == []
            if thief is mallory:
                assert (await upstream(app, alice)).json() == {"token": token}


def token_set_of(name: str) -> TokenSet:
    """A token set with that name in it."""
    return TokenSet(access_token=Secret(f"canary-{name}"), refresh_token=Secret(name), issued_at=0, expires_at=4e9)


async def store_session(store: MongoSessionStore, name: str) -> Session:
    """A session with such a token set."""
    session = Session(
        id="5" * 32, user_id="u", created_at=1, last_seen=1, expires_at=4e9, idle_expires_at=4e9,
        token_set=token_set_of(name), token_version=1,
    )  # fmt: skip
    await store.insert(session)
    return session


async def documents(database: Any) -> list[dict[str, Any]]:
    """All sessions as stored."""
    found: list[dict[str, Any]] = await database["sessions"].find().to_list(None)
    return found


def opened(document: dict[str, Any], key: bytes) -> dict[str, str]:
    """The fields of a document that the key opens, by the refresh token, or else the text, that they hold."""
    found = {}
    for name, value in document.items():
        if isinstance(value, bytes):
            try:
                content = Keyring([key]).open(value, context(name, document["_id"], document["user_id"])).decode()
            except UnsealError:
                continue
            found[name] = json.loads(content)["refresh_token"] if content.startswith("{") else content
    return found
