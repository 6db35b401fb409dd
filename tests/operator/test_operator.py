"""`python -m tornado_sse_auth` on a real MongoDB, beside running processes."""

from __future__ import annotations

import asyncio
import base64
import gc
import io
import json
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from pymongo import AsyncMongoClient, MongoClient

from tests.parts import provider as oidc
from tests.parts.mongod import ExternalMongo, ReplicaSet
from tests.parts.scripted_provider import Answer, ScriptedProvider
from tests.scenarios.server import Running, serve
from tests.stores.backends import make_credential, make_grant, make_session, make_token_set, now_clock
from tornado_sse_auth import Keyring, MongoEventLog, MongoSessionStore, OAuthProvider
from tornado_sse_auth.operator import main
from tornado_sse_auth.operator import sessions as operator_sessions
from tornado_sse_auth.operator.terminal import Declined, Terminal

OLD, NEW = (base64.b64encode(secrets.token_bytes(32)).decode() for _ in range(2))
SECRETS = ("access-1", "refresh-1", OLD, NEW, "hunter2")
WHO = f"operator's tool, user {os.getuid()}"
Tool = Callable[..., "Outcome"]


class Outcome:
    """What the tool gave."""

    def __init__(self, status: int, output: str, errors: str) -> None:
        self.status = status
        self.output = output
        self.errors = errors
        assert not any(secret in output + errors for secret in SECRETS)
        assert "Traceback" not in errors

    @property
    def document(self) -> Any:
        """The one JSON document."""
        return json.loads(self.output)


@pytest.fixture
def tool(
    mongod: ReplicaSet | ExternalMongo,
    database_name: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> Tool:
    """The tool on the test's database, where nobody can be asked."""
    monkeypatch.setenv("SSE_AUTH_MONGODB_URI", mongod.uri)
    monkeypatch.setenv("SSE_AUTH_MONGODB_DATABASE", database_name)
    monkeypatch.setenv("SSE_AUTH_ENCRYPTION_KEYS", OLD)
    monkeypatch.setattr("sys.stdin", io.StringIO())

    def run(*arguments: str, **environment: str) -> Outcome:
        for name, value in environment.items():
            monkeypatch.setenv(f"SSE_AUTH_{name.upper()}", value)
        capfd.readouterr()
        try:
            status = main(arguments)
        except SystemExit as wanted:  # argparse has said what is wrong
            status = int(str(wanted.code))
        captured = capfd.readouterr()
        return Outcome(status, captured.out, captured.err)

    return run


@asynccontextmanager
async def stored(uri: str, name: str, keys: str = OLD) -> AsyncIterator[MongoSessionStore]:
    """The started store of an application."""
    async with AsyncMongoClient[dict[str, Any]](uri) as client:
        store = MongoSessionStore(client[name], Keyring.from_base64(keys))
        await store.start()
        try:
            yield store
        finally:
            await store.close()


async def fill(uri: str, name: str, *sessions: Any) -> None:
    async with stored(uri, name) as store:
        for session in sessions:
            await store.insert(session)


def test_sessions_are_shown_without_secrets(tool: Tool, mongod: ReplicaSet | ExternalMongo, database_name: str) -> None:
    """SEC-09: by page, by user, one by one, as JSON and as text; also without keys."""
    clock = now_clock()
    sessions = [make_session(clock, f"s{n}", user_id=f"u{n % 2}", client="evil\x1b[2J\u202e") for n in range(5)]
    asyncio.run(fill(mongod.uri, database_name, *sessions))
    for keys in (OLD, ""):
        page = tool("sessions", "list", "--json", "--limit", "2", encryption_keys=keys).document
        assert ([one["id"] for one in page["sessions"]], page["next"]) == (["s0", "s1"], "s1")
        rest = tool("sessions", "list", "--json", "--after", page["next"]).document
        assert ([one["id"] for one in rest["sessions"]], rest["next"]) == (["s2", "s3", "s4"], None)
        one = tool("sessions", "show", "s3", "--json").document
        assert (one["user_id"], one["state"], one["scopes"]) == ("u1", "active", ["a", "b"])
        assert one["sealed_with"] == Keyring.from_base64(OLD).sealing_key_id.hex()
        assert [credential["kind"] for credential in one["credentials"]] == ["cookie"]
    text = tool("sessions", "list", "--user", "u1")
    assert [line.split()[0] for line in text.output.splitlines()] == ["id", "s1", "s3"]
    assert "\x1b" not in text.output
    assert "\u202e" not in text.output
    shown = tool("sessions", "show", "s3").output
    digest = sessions[3].credentials[0].digest
    assert digest.hex() not in shown
    assert repr(digest) not in shown
    missing = tool("sessions", "show", "nobody")
    assert (missing.status, missing.output) == (1, "")
    assert "no session nobody" in missing.errors


@asynccontextmanager
async def application(provider: ScriptedProvider, uri: str, name: str) -> AsyncIterator[Running]:
    upstream = OAuthProvider(issuer=provider.issuer, client_id="app", client_secret=provider.client_secret)
    async with AsyncMongoClient[dict[str, Any]](uri) as client:
        store = MongoSessionStore(client[name], Keyring.from_base64(OLD))
        async with serve(store, upstream, events=MongoEventLog(client[name])) as app:
            yield app


async def test_what_the_tool_ends_ends_everywhere(
    tool: Tool,
    scripted_provider: ScriptedProvider,
    mongod: ReplicaSet | ExternalMongo,
    database_name: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """SEC-50: streams in a running process end, its next request gets 401, the audit log has a line, and the provider
    is told where it was named. Nothing happens unless somebody says yes."""
    told = {"issuer": scripted_provider.issuer, "client_id": "app", "client_secret": scripted_provider.client_secret}
    async with application(scripted_provider, mongod.uri, database_name) as app, AsyncExitStack() as stack:

        async def sign_in(account: str) -> tuple[Any, str, dict[str, str]]:
            done = await oidc.sign_in(f"{app.url}/auth/login", account=account)
            cookie = {"Cookie": f"{app.cookie}={done.cookies[app.cookie]}"}
            stream = await stack.enter_async_context(app.stream("/content", headers=cookie))
            return stream, (await stream.next("open")).json()["session_id"], cookie

        signed_in = [await sign_in(account) for account in ("one", "two", "two", "three", "four")]
        streams, ids, cookies = zip(*signed_in, strict=True)

        refused = await asyncio.to_thread(tool, "sessions", "revoke", ids[0])
        assert refused.status == 2
        assert "--yes" in refused.errors
        one = await asyncio.to_thread(tool, "sessions", "revoke", ids[0], "nobody", "--yes", "--json")
        assert (one.status, one.document) == (1, {"ended": 1})
        assert "no session nobody" in one.errors
        assert "The provider was not told" in one.errors
        line = json.loads(caplog.records[-1].message)
        assert (line["event"], line["session_id"], line["client"]) == ("revocation", ids[0], WHO)
        assert (await streams[0].next("end")).json() == {"reason": "revoked"}
        async with app.client(headers=cookies[0]) as client:
            assert (await client.get("/me")).status_code == 401

        two = f"{scripted_provider.issuer}|two"
        user = await asyncio.to_thread(lambda: tool("sessions", "revoke-user", two, "--yes", "--json", **told))
        assert (user.status, user.document) == (0, {"ended": 2})
        for stream in streams[1:3]:
            assert (await stream.next("end")).json() == {"reason": "revoked"}
        assert "The provider was not told" not in user.errors
        assert len(scripted_provider.calls("revoke")) == 2
        assert (await asyncio.to_thread(tool, "sessions", "revoke-user", two, "--yes")).status == 1

        def damage() -> None:
            with MongoClient[dict[str, Any]](mongod.uri) as client:
                client[database_name]["sessions"].update_one({"_id": ids[4]}, {"$set": {"schema": 99}})

        await asyncio.to_thread(damage)
        four = await asyncio.to_thread(tool, "sessions", "revoke", ids[4], "--yes", "--json")
        assert (four.status, four.document) == (0, {"ended": 1})
        line = json.loads(caplog.records[-1].message)
        assert (line["event"], line["session_id"], line["user_id"]) == ("revocation", ids[4], "")
        everybody = await asyncio.to_thread(tool, "sessions", "revoke-all", "--yes", "--json")
        assert (everybody.status, everybody.document) == (0, {"ended": 1})
        for stream in streams[3:]:
            assert (await stream.next("end")).json() == {"reason": "revoked"}
        assert len(scripted_provider.calls("revoke")) == 3  # what cannot be read cannot be revoked there
        assert (await asyncio.to_thread(tool, "sessions", "list", "--json")).document["sessions"] == []
        _, session_id, _ = await sign_in("one")
        listed = (await asyncio.to_thread(tool, "sessions", "list", "--json")).document
        assert [one["id"] for one in listed["sessions"]] == [session_id]


async def test_a_provider_that_hangs_holds_up_no_end(
    tool: Tool,
    scripted_provider: ScriptedProvider,
    mongod: ReplicaSet | ExternalMongo,
    database_name: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """SEC-50: after a theft everybody's sessions end first, however many pages of them there are; then the provider is
    told of all."""
    monkeypatch.setattr(operator_sessions, "PAGE", 2)
    told = {"issuer": scripted_provider.issuer, "client_id": "app", "client_secret": scripted_provider.client_secret}
    clock = now_clock()
    gate = asyncio.Event()
    scripted_provider.script("revoke", *[Answer(gate=gate)] * 5)
    async with stored(mongod.uri, database_name) as db:
        for number in range(5):
            tokens = make_token_set(clock, str(number))
            await db.insert(make_session(clock, f"s{number}", user_id=f"u{number}", token_set=tokens))
        ending = asyncio.create_task(
            asyncio.to_thread(lambda: tool("sessions", "revoke-all", "--yes", "--json", **told))
        )
        await scripted_provider.wait_for_calls("revoke", timeout=30)
        assert [await db.find(f"s{number}") for number in range(5)] == [None] * 5
        gate.set()
        everybody = await ending
    assert (everybody.status, everybody.document) == (0, {"ended": 5})
    revoked = {call.form["token"] for call in scripted_provider.calls("revoke")}
    assert revoked == {f"refresh-{number}" for number in range(5)}


async def test_a_client_is_ended_and_the_sessions_stay(
    tool: Tool, scripted_provider: ScriptedProvider, mongod: ReplicaSet | ExternalMongo, database_name: str
) -> None:
    """SEC-50: what a malicious client was allowed ends; a session that it alone held ends with it, and its token at the
    provider; others keep their tokens, also where the tool is not given all keys: then it does nothing."""
    clock = now_clock()
    told = {"issuer": scripted_provider.issuer, "client_id": "app", "client_secret": scripted_provider.client_secret}
    grant = make_grant(clock)

    async def outcome(*arguments: str, **environment: str) -> Outcome:
        return await asyncio.to_thread(lambda: tool("sessions", "revoke-client", *arguments, "--yes", **environment))

    async with (
        application(scripted_provider, mongod.uri, database_name) as app,
        stored(mongod.uri, database_name) as db,
    ):
        done = await oidc.sign_in(f"{app.url}/auth/login", account="one")
        cookie = {"Cookie": f"{app.cookie}={done.cookies[app.cookie]}"}
        (session,) = await db.find_by_user(f"{scripted_provider.issuer}|one")
        credentials = (*session.credentials, make_credential(clock))
        before = await db.update(replace(session, credentials=credentials, grants=(grant,)))
        await db.insert(make_session(clock, "held by the client alone", user_id="u2", grants=(grant,)))
        for keys, says in (("", "give the encryption keys"), (NEW, "open with none of these keys")):
            refused = await outcome(grant.client_id, encryption_keys=keys)
            assert (refused.status, refused.output) == (2, "")
            assert says in refused.errors
        assert await db.find(session.id) == before
        assert (await outcome("https://unknown.example/", encryption_keys=OLD)).status == 1
        ended = await outcome(grant.client_id, "--json", **told)
        assert (ended.status, ended.document) == (0, {"ended": 2})
        assert await db.find("held by the client alone") is None
        after = await db.find(session.id)
        assert after is not None
        assert (after.grants, after.credentials, after.token_set) == ((), session.credentials, session.token_set)
        assert [call.form["token"] for call in scripted_provider.calls("revoke")] == ["refresh-1"]
        async with app.client(headers=cookie) as client:
            assert (await client.get("/me")).status_code == 200


def test_keys_are_counted_and_values_sealed_again(
    tool: Tool, mongod: ReplicaSet | ExternalMongo, database_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """SEC-59: the tool says when an old key may go, and what a missing one would cost."""
    clock = now_clock()
    sessions = [make_session(clock, f"s{n}") for n in range(3)]
    asyncio.run(fill(mongod.uri, database_name, *sessions))
    old, new = (Keyring.from_base64(key).sealing_key_id.hex() for key in (OLD, NEW))
    alone = tool("keys", "status", "--json")
    assert (alone.status, alone.document["values"], alone.document["dispensable"]) == (0, {old: 3}, [])
    lost = tool("keys", "status", encryption_keys=NEW)
    assert lost.status == 1
    assert "3 values open with none of these keys" in lost.output
    both = tool("keys", "status", encryption_keys=f"{NEW},{OLD}")
    assert both.status == 0
    assert [line.split() for line in both.output.splitlines()[1:3]] == [[new, "seals", "0"], [old, "opens", "3"]]
    assert tool("keys", "reseal").status == 2
    done = tool("keys", "reseal", "--yes", "--json")
    assert (done.status, done.document["resealed"], done.document["dispensable"]) == (0, 3, [old])
    line = json.loads(caplog.records[-1].message)
    assert (line["event"], line["outcome"], line["client"]) == ("key-rotation", "success", WHO)
    assert "\r" not in done.errors  # progress is for terminals
    again = tool("keys", "reseal", "--json")
    assert (again.status, again.document["resealed"]) == (0, 0)
    assert "may be dropped" in tool("keys", "status").output

    async def read() -> None:
        async with stored(mongod.uri, database_name, NEW) as store:
            assert [await store.find(session.id) for session in sessions] == sessions

    asyncio.run(read())
    without = tool("keys", "status", encryption_keys="")
    assert (without.status, without.output) == (2, "")


def test_indexes_are_compared_and_made(tool: Tool, mongod: ReplicaSet | ExternalMongo, database_name: str) -> None:
    missing = tool("indexes", "--json")
    assert missing.status == 1
    assert {one["state"] for one in missing.document["indexes"]} == {"missing"}
    assert tool("indexes", "--create").status == 2
    made = tool("indexes", "--create", "--yes", "--json")
    assert made.status == 0
    assert {one["state"] for one in made.document["indexes"]} == {"ok"}
    with MongoClient[dict[str, Any]](mongod.uri) as client:
        client[database_name]["sessions"].drop_index("credential")
        client[database_name]["sessions"].create_index("credentials.digest", name="credential")
    changed = tool("indexes")
    assert changed.status == 1
    assert any(line.split() == ["sessions", "credential", "differs"] for line in changed.output.splitlines())


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_what_is_wrong_is_said_in_one_line(tool: Tool) -> None:
    """Without the URI, whose password is nobody's business."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]
        for uri, status, says in (
            ("", 2, "SSE_AUTH_MONGODB_URI"),
            ("mongodb://u:hunter2@:x/", 2, "not one that the driver understands"),
            ("nonsense://hunter2", 2, "not one that the driver understands"),
            (f"mongodb://u:hunter2@127.0.0.1:{port}/?serverSelectionTimeoutMS=100", 3, "does not answer"),
        ):
            wrong = tool("sessions", "list", mongodb_uri=uri)
            assert (wrong.status, wrong.output) == (status, "")
            assert says in wrong.errors
            assert len(wrong.errors.splitlines()) == 1
    bad_keys = tool("keys", "status", mongodb_uri="mongodb://127.0.0.1", encryption_keys="hunter2")
    assert (bad_keys.status, bad_keys.output) == (2, "")
    assert tool("sessions", "explode").status == 2
    assert tool("--help").status == 0
    gc.collect()  # PyMongo leaves the socket of an attempt that its end interrupts: told here, where it is ours


def test_a_person_is_asked_and_a_pipe_is_not() -> None:
    """Only yes is yes; progress is one line that is written over."""

    class Teletype(io.StringIO):
        def isatty(self) -> bool:
            return True

    for answer, agreed in (
        ("y\n", True),
        ("YES\n", True),
        ("\n", False),
        ("n\n", False),
        ("", False),
        ("yep\n", False),
    ):
        errors = Teletype()
        terminal = Terminal(as_json=False, assume_yes=False, errors=errors, answers=Teletype(answer))
        if agreed:
            terminal.confirm("End everything?")
        else:
            with pytest.raises(Declined):
                terminal.confirm("End everything?")
        assert errors.getvalue() == "End everything? [y/N] "
    for stream, expected in ((Teletype(), "\r\033[K1 of 2\r\033[K2 of 2\r\033[Kdone\n"), (io.StringIO(), "done\n")):
        terminal = Terminal(as_json=False, assume_yes=True, errors=stream)
        terminal.progress("1 of 2")
        terminal.progress("2 of 2")
        terminal.tell("done")
        assert stream.getvalue() == expected


def test_who_stops_reading_gets_no_traceback(
    tool: Tool, mongod: ReplicaSet | ExternalMongo, database_name: str
) -> None:
    """`… | head -1` on more than a pipe holds."""
    clock = now_clock()
    asyncio.run(fill(mongod.uri, database_name, *(make_session(clock, f"s{n:04}") for n in range(300))))
    command = f'"{sys.executable}" -m tornado_sse_auth sessions list --json --limit 1000 | head -1'
    ended = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=60, env=os.environ, check=False)
    assert (ended.stdout, ended.stderr) == ("{\n", "")
