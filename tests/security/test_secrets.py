"""Secrets: seen by nobody, in nothing that the server writes, sends or stores; gone when they are replaced."""

from __future__ import annotations

import asyncio
import base64
import copy
import dataclasses
import json
import pickle
import re
import secrets
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import bson
import httpx
import pytest
from pymongo import AsyncMongoClient

from tests.parts.mongod import ExternalMongo, ReplicaSet
from tests.parts.process import ServerProcess, free_port
from tests.parts.scripted_provider import Answer, ScriptedProvider
from tests.parts.sse_client import SSEClient
from tests.parts.statsd import StatsDListener
from tests.scenarios.server import Running, serve
from tornado_sse_auth import (
    CredentialKind,
    Keyring,
    MongoSessionStore,
    OAuthProvider,
    Secret,
    Session,
    SessionState,
    TokenSet,
)
from tornado_sse_auth.sealing import UnsealError, context

ROOT = Path(__file__).parents[2]


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


class Canaries:
    """Every value that nobody but its owner may see, and what kind it is of."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}

    def add(self, kind: str, *values: str) -> None:
        """Watch for these."""
        for value in values:
            assert len(value) >= 16, kind
            self.values[value] = kind

    def seen_in(self, text: str) -> set[str]:
        """The kinds of those that stand in `text`: as they are, in base64 of either alphabet, or in hexadecimal."""
        found = set()
        for value, kind in self.values.items():
            raw = value.encode()
            coded = {base64.b64encode(raw[i : len(raw) - (len(raw) - i) % 3]).decode() for i in range(3)}
            coded |= {part.replace("+", "-").replace("/", "_") for part in coded}
            if any(form in text for form in {value, raw.hex(), *coded}):
                found.add(kind)
        return found


class RecordingProvider(ScriptedProvider):
    """Remembers every secret that it gives or is told."""

    def collect(self, canaries: Canaries) -> None:
        """Hand them over."""
        canaries.add("access token", *self._access_tokens)
        canaries.add("refresh token", *self._refresh_tokens)
        canaries.add("id token", *self.id_tokens)
        for call in self._calls:
            for field in ("code", "code_verifier"):
                if field in call.form:
                    canaries.add(field, call.form[field])

    async def __aenter__(self) -> RecordingProvider:
        await super().__aenter__()
        self.id_tokens: list[str] = []

        def encode(claims: dict[str, Any]) -> str:
            self.id_tokens.append(self.sign(claims))
            return self.id_tokens[-1]

        self.encode_id_token = encode
        return self


@asynccontextmanager
async def canary_server(
    provider: ScriptedProvider, uri: str, database: str, statsd: StatsDListener, canaries: Canaries
) -> AsyncIterator[tuple[str, ServerProcess]]:
    """The server with every secret option set; gives its URL and its process."""
    port, keys = free_port(), [secrets.token_bytes(32) for _ in range(2)]
    encoded = [base64.b64encode(key).decode() for key in keys]
    canaries.add("encryption key", *encoded, *(key.hex() for key in keys))
    canaries.add("client secret", provider.client_secret)
    process = ServerProcess(
        "canary server",
        [
            sys.executable,
            "-m",
            "tests.security.canary_server",
            f"--port={port}",
            f"--issuer={provider.issuer}",
            f"--client-id={provider.client_id}",
            f"--statsd={statsd.host}:{statsd.port}",
            f"--mongodb-database={database}",
            "--mongodb-driver=pymongo",
            "--refresh-interval=0.1",
            "--grant-scopes=content:read events:write",
        ],
        ready=lambda server: server.wait_for_line("serving", 30),
        environment={
            "SAMPLE_CLIENT_SECRET": provider.client_secret,
            "SAMPLE_ENCRYPTION_KEYS": ",".join(encoded),
            "SAMPLE_MONGODB_URI": uri,
        },
    )
    await asyncio.to_thread(process.start)
    try:
        yield f"http://127.0.0.1:{port}", process
    finally:
        await asyncio.to_thread(process.stop)


class Visitor:
    """A browser that signs in, and notes which of the secrets it was given were meant for it."""

    def __init__(self, url: str, canaries: Canaries) -> None:
        self.url = url
        self.canaries = canaries
        self.answers: list[httpx.Response] = []
        self.client = httpx.AsyncClient(
            base_url=url, trust_env=False, timeout=10, event_hooks={"response": [self._note]}
        )

    async def _note(self, answer: httpx.Response) -> None:
        await answer.aread()
        self.answers.append(answer)
        for cookie in answer.headers.get_list("Set-Cookie"):
            if value := cookie.partition(";")[0].partition("=")[2].strip('"'):
                self.canaries.add("cookie", value)

    async def sign_in(self, user: str, *, status: int = 302, **parameters: str) -> None:
        """The whole way."""
        login = await self.client.get("/auth/login", params={"login_hint": user, **parameters})
        query = parse_qs(urlsplit(login.headers["Location"]).query)
        self.canaries.add("state", *query["state"])
        self.canaries.add("nonce", *query["nonce"])
        async with httpx.AsyncClient(trust_env=False) as elsewhere:
            callback = (await elsewhere.get(login.headers["Location"])).headers["Location"]
        assert (await self.client.get(callback)).status_code == status

    @property
    def cookie(self) -> dict[str, str]:
        """The Cookie header with the session."""
        name, value = next((name, value) for name, value in self.client.cookies.items() if "sign_in" not in name)
        return {"Cookie": f"{name}={value}"}


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
    scripted.script("userinfo", Answer(status=500, body=PROVIDER_TEXT))
    await visitor.client.get("/auth/callback", params={"state": "x", "error": "e", "error_description": PROVIDER_TEXT})
    for headers in ({"Authorization": f"Bearer {bearer}x"}, {"Authorization": f"Bearer {bearer} x"}, {"Host": "evil"}):
        await visitor.client.get("/me", headers=headers)
    async with SSEClient(f"{visitor.url}/events", headers=visitor.cookie) as stream:
        await stream.next("open")
        assert (await visitor.client.post("/auth/logout", json={"everywhere": True}, headers=origin)).status_code == 204
        await stream.next("end")
    await scripted.wait_for_calls("revoke", 1)
    await visitor.sign_in("bob", status=503)
    await visitor.sign_in("carol")


async def test_no_secret_is_anywhere_but_with_its_owner(
    mongod: ReplicaSet | ExternalMongo, database_name: str, statsd: StatsDListener
) -> None:
    """SEC-56, SEC-58, SEC-01, SEC-09; CVE-2022-24757, CVE-2025-67724: every secret of a run through the main scenarios,
    searched for in all log records at DEBUG (asyncio, drivers and HTTP client too), in every answer, in the StatsD
    packets, in dumps of every object of ours, and in the database; provider text in no answer and no log."""
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
    assert kinds >= {"bearer", "reauth", "encryption key", "client secret"}
    assert len(spilt) > 100_000
    assert "Secret(…)" in spilt
    assert "UserContext" in spilt
    assert output.count("DEBUG") > 100
    assert "could not use Secret(…)" in output
    assert PROVIDER_TEXT not in output
    assert canaries.seen_in(output) == set()
    assert canaries.seen_in(spilt) == set()
    assert canaries.seen_in(stored) == set()
    assert len(statsd.packets) > 10
    assert canaries.seen_in(b"".join(statsd.packets).decode("latin-1")) == set()
    told = "".join(answer.text + str(answer.headers.multi_items()) for answer in visitor.answers)
    assert canaries.seen_in(told) >= {"cookie", "bearer", "state", "reauth"}  # with their owner: the search works
    private = {"access token", "refresh token", "id token", "code", "code_verifier", "encryption key", "client secret"}
    for answer in visitor.answers:
        if answer.request.url.path != "/spill":
            told = answer.text + str(answer.headers.multi_items())
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


async def test_keys_are_rotated_under_running_sessions(mongod: ReplicaSet | ExternalMongo, database_name: str) -> None:
    """SEC-59: a new first key opens what the old one sealed and seals anew on the next write; once the old key is
    dropped, only a session that was never written since needs its user again: 401 with where to sign in, and no 500."""
    old, new = secrets.token_bytes(32), secrets.token_bytes(32)
    bearers: dict[str, str] = {}
    async with ScriptedProvider() as scripted, AsyncMongoClient[dict[str, Any]](mongod.uri) as client:

        @asynccontextmanager
        async def application(*keys: bytes) -> AsyncIterator[Running]:
            provider = OAuthProvider(
                issuer=scripted.issuer, client_id=scripted.client_id, client_secret=scripted.client_secret
            )
            async with serve(MongoSessionStore(client[database_name], Keyring(keys)), provider) as app:
                yield app

        async def upstream(app: Running, user: str, min_ttl: float = 0.0) -> httpx.Response:
            headers = {"Authorization": f"Bearer {bearers[user]}"}
            async with app.client(headers=headers) as caller:
                return await caller.get("/upstream", params={"min_ttl": min_ttl})

        async with application(old) as app:
            for user in ("refreshed", "forgotten"):
                tokens = scripted.issue(user)
                now = app.auth.clock.time()
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
                bearers[user] = secret.reveal()
        async with application(new, old) as app:
            before = await upstream(app, "refreshed")
            after = await upstream(app, "refreshed", min_ttl=10_000)  # less than half of its life is left: refreshes
            assert (before.status_code, after.status_code) == (200, 200)
            assert before.json() != after.json()
            assert (await upstream(app, "forgotten")).status_code == 200
        async with application(new) as app:
            assert (await upstream(app, "refreshed")).json() == after.json()
            refused = await upstream(app, "forgotten")
            assert (refused.status_code, refused.json()["error"]) == (401, "authorization_required")
            assert "/auth/login?reauth=" in refused.json()["authorization_url"]


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
