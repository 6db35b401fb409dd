"""Secrets: seen by nobody, in nothing that the server writes, sends or stores."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
import re
from typing import Any
from urllib.parse import parse_qs, urlsplit

import bson
import pytest
from pymongo import AsyncMongoClient

from tests.parts.mongod import ExternalMongo, ReplicaSet
from tests.parts.scripted_provider import Answer
from tests.parts.sse_client import SSEClient
from tests.parts.statsd import StatsDListener
from tests.security.assistant import Assistant
from tests.security.canaries import Canaries, RecordingProvider, Visitor, canary_server
from tests.security.canary_server import dump
from tornado_sse_auth import MemorySessionStore, Secret, TokenSet


def test_a_secret_shows_itself_by_one_method_only() -> None:
    """SEC-58: in a string, a format, a container, a traceback, JSON, pickle, a copy, a comparison."""
    secret = Secret("canary-value")
    token_set = TokenSet(access_token=secret, refresh_token=secret, issued_at=0, expires_at=1)
    shown = [
        repr(secret),
        str(secret),
        f"{secret}",
        f"{secret!r:>40}",
        f"{[secret]} {token_set} { {secret: secret} }",
        format(secret),
        "%s %r" % (secret, secret),  # noqa: UP031
        json.dumps({"secret": secret}, default=str),
        repr(Exception(secret)),
    ]
    assert "canary" not in " ".join(shown)
    for give_away in (pickle.dumps, copy.copy, copy.deepcopy, json.dumps):
        for thing in (secret, [secret], token_set):
            if give_away is copy.copy and thing is not secret:
                continue  # a copied container holds the very same secret
            with pytest.raises(TypeError) as refusal:
                give_away(thing)
            assert "canary" not in str(refusal.value)
    for look_inside, thing in ((dataclasses.asdict, token_set), (vars, secret)):
        with pytest.raises(TypeError):
            look_inside(thing)
    assert not hasattr(secret, "__dict__")
    assert not hasattr(secret, "value")
    assert secret.reveal() == "canary-value"
    assert (secret == Secret("canary-value"), secret == Secret("other"), secret == "canary-value") == (
        True,
        False,
        False,
    )


async def test_records_in_memory_show_nothing() -> None:
    """SEC-58: what waits in the memory store for a callback or a decision, in a dump of its attributes."""
    store = MemorySessionStore()
    value = {"verifier": "canary-verifier", "state": "canary-state"}
    await store.records.put("sign-in", b"d" * 32, value, 4e9)
    await store.kept.put("authorization-request", "k", value, 4e9)
    assert "canary" not in "".join(line for part in (store, store.records, store.kept) for line in dump(part))
    assert await store.records.take("sign-in", b"d" * 32) == value
    kept = await store.kept.get("authorization-request", "k")
    assert kept is not None
    assert kept.value == value


PROVIDER_TEXT = "canary-words-of-the-provider"


async def everything_that_happens(visitor: Visitor, scripted: RecordingProvider, canaries: Canaries) -> None:
    """The main scenarios, good and bad, one after the other."""
    origin = {"Origin": visitor.url}
    await visitor.sign_in("alice")
    made = await visitor.client.post("/auth/token", json={"grant": "session"}, headers=origin)
    bearer = made.json()["access_token"]
    canaries.add("bearer", bearer)
    async with SSEClient(f"{visitor.url}/events", bearer=bearer) as stream:
        await stream.next("open")
        await visitor.client.post("/publish", json={"text": "hello"}, headers=origin)
        await stream.next("message")
        await scripted.wait_for_calls("token", 1, grant_type="refresh_token", timeout=20)
        failing = json.dumps({"error": "server_error", "error_description": PROVIDER_TEXT})
        scripted.script("token", Answer(status=500, body=failing), Answer(status=429, body=PROVIDER_TEXT))
        await scripted.wait_for_calls("token", 3, grant_type="refresh_token", timeout=40)
        refused = json.dumps({"error": "invalid_grant", "error_description": PROVIDER_TEXT})
        scripted.script("token", Answer(status=400, body=refused))
        required = (await stream.next("auth_required", timeout=40)).json()
        reauth = parse_qs(urlsplit(required["authorization_url"]).query)["reauth"][0]
        canaries.add("reauth", reauth)
        assert (await visitor.client.get("/me")).status_code == 401
        await visitor.sign_in("alice", reauth=reauth)
        await stream.next("auth_restored", timeout=20)
        for path in ("/me", "/auth/sessions", "/health", "/readyz", "/livez", "/", "/nothing"):
            await visitor.client.get(path)
        assert (await visitor.client.get("/failing")).status_code == 500
    assistant = Assistant(visitor)
    await assistant.sign_in()
    await assistant.refresh()
    scripted.script("userinfo", Answer(status=500, body=PROVIDER_TEXT))
    await visitor.client.get("/auth/callback", params={"state": "x", "error": "e", "error_description": PROVIDER_TEXT})
    for headers in ({"Authorization": f"Bearer {bearer}x"}, {"Authorization": f"Bearer {bearer} x"}, {"Host": "evil"}):
        await visitor.client.get("/me", headers=headers)
    await assistant.leave()
    async with SSEClient(f"{visitor.url}/events", headers=visitor.cookie) as stream:
        await stream.next("open")
        assert (await visitor.client.post("/auth/logout", json={"everywhere": True}, headers=origin)).status_code == 204
        await stream.next("end")
    await scripted.wait_for_calls("revoke", 1)
    await visitor.sign_in("bob", status=503)
    await visitor.sign_in("carol")
    assistant = Assistant(visitor)  # which is still there when the objects are dumped
    await assistant.sign_in()
    await assistant.work()


async def test_no_secret_is_anywhere_but_with_its_owner(
    mongod: ReplicaSet | ExternalMongo, database_name: str, statsd: StatsDListener
) -> None:
    """SEC-56, SEC-58, SEC-01, SEC-09; CVE-2022-24757, CVE-2025-67724: every secret of a run through the main scenarios
    of a browser and of an MCP client, searched for in all log records at DEBUG (asyncio, drivers and HTTP client too),
    in every answer, in the StatsD packets, in dumps of every object of ours, and in the database; provider text in no
    answer and no log."""
    canaries = Canaries()
    async with RecordingProvider(expires_in=3) as scripted:
        async with canary_server(scripted, mongod.uri, database_name, statsd, canaries) as (url, process):
            visitor = Visitor(url, canaries)
            async with visitor.client:
                await everything_that_happens(visitor, scripted, canaries)
                scripted.collect(canaries)
                spilt = (await visitor.client.get("/spill")).text
            stored = await dumped(mongod.uri, database_name)
        output = process.output
    kinds = set(canaries.values.values())
    assert kinds >= {"access token", "refresh token", "id token", "code", "code_verifier", "state", "nonce", "cookie"}
    assert kinds >= {"bearer", "reauth", "encryption key", "client secret", "consent", "MCP session"}
    assert kinds >= {f"assistant's {what}" for what in ("secret", "state", "verifier", "code", "access token")}
    assert len(spilt) > 100_000
    assert "Secret(…)" in spilt
    assert "UserContext" in spilt
    assert output.count("DEBUG") > 100
    assert "could not use Secret(…)" in output
    assert PROVIDER_TEXT not in output
    assert canaries.seen_in(output) == set()
    # The SDK keeps the id of a session that is open; without the credential of its user it opens nothing.
    assert canaries.seen_in(spilt) <= {"MCP session"}
    assert canaries.seen_in(stored) == set()
    assert b"session.validate" in b"".join(statsd.packets)  # how many packets they travel in is the moment's affair
    assert canaries.seen_in(b"".join(statsd.packets).decode("latin-1")) == set()
    told = "".join(answer.text + str(answer.headers.multi_items()) for answer in visitor.answers)
    owned = {"cookie", "bearer", "state", "reauth", "consent", "MCP session"}
    owned |= {f"assistant's {what}" for what in ("secret", "state", "code", "access token", "refresh token")}
    assert canaries.seen_in(told) >= owned  # with their owner: the search works
    private = {"access token", "refresh token", "id token", "code", "code_verifier", "encryption key", "client secret"}
    private |= {"assistant's verifier"}
    for answer in visitor.answers:
        if answer.request.url.path != "/spill":
            told = answer.reason_phrase + answer.text + str(answer.headers.multi_items())
            assert not private & canaries.seen_in(told), answer.request.url.path
            assert PROVIDER_TEXT not in told


async def dumped(uri: str, name: str) -> str:
    """Every document of every collection: as text, and its bytes as Latin-1."""
    async with AsyncMongoClient[dict[str, Any]](uri) as client:
        written = []
        for collection in await client[name].list_collection_names():
            async for document in client[name][collection].find():
                written += [repr(document), bson.encode(document).decode("latin-1")]
                assert not re.search(rb"\x80\x04\x95", bson.encode(document)), "a pickle"
        assert written
        return "\n".join(written)
