"""Sessions of the 2025 revisions at `/mcp`: in the store, so that any process goes on with one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.subscriptions import ResourceUpdated, ToolsListChanged
from pydantic import BaseModel
from pymongo import AsyncMongoClient

from tests.mcp.legacy import Legacy, request
from tests.mcp.serving import BOUND, Running, named, serving, until
from tornado_sse_auth import (
    EventLog,
    Keyring,
    MemoryEventLog,
    MemorySessionStore,
    MongoEventLog,
    MongoSessionStore,
    SessionStore,
    SSEAuthenticationMiddleware,
)
from tornado_sse_auth.identity import CredentialKind, Grant
from tornado_sse_auth.mcp import EventLogBus, requires
from tornado_sse_auth.sessions.credentials import issue
from tornado_sse_auth.sessions.grant_changes import with_grant

pytestmark = pytest.mark.filterwarnings("ignore::mcp.shared.exceptions.MCPDeprecationWarning")

Storage = Callable[[], tuple[SessionStore, EventLog]]


class Answer(BaseModel):
    """What the user is asked."""

    word: str


class Fixture:
    """The server's tools, and what became of their calls."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.gate = asyncio.Event()

    def build(self, auth: SSEAuthenticationMiddleware) -> MCPServer[Any]:
        server = named(auth)

        @server.tool()
        async def add(a: int, b: int) -> str:
            return str(a + b)

        @server.tool()
        async def ask(ctx: Context[Any, Any]) -> str:
            answer = await ctx.elicit("Which word?", Answer)
            return answer.data.word if answer.action == "accept" else answer.action

        @server.tool()
        async def wait(ctx: Context[Any, Any], speak: bool = True) -> str:
            self.log.append("waits")
            try:
                if speak:
                    await ctx.info("one")
                await self.gate.wait()
            except asyncio.CancelledError:
                self.log.append("cancelled")
                raise
            await ctx.info("two")
            return "went on"

        @server.tool()
        async def touch(ctx: Context[Any, Any]) -> str:
            await ctx.session.send_resource_updated("content://a")
            return "touched"

        @server.tool()
        async def say(ctx: Context[Any, Any]) -> str:
            await ctx.debug("detail")
            await ctx.error("alarm")
            return "said"

        @server.resource("content://{slug}")
        def content(slug: str) -> str:
            return slug

        @server.resource("paid://{slug}", meta=requires(subscription="pro"))
        def paid(slug: str) -> str:
            return slug

        return server


@pytest.fixture
def fixture() -> Fixture:
    return Fixture()


@pytest.fixture(params=["memory", "mongo"])
async def storage(request: pytest.FixtureRequest) -> AsyncIterator[Storage]:
    """Makes store and log of one more process, over one database."""
    if request.param == "memory":
        store, events = MemorySessionStore(), MemoryEventLog()
        yield lambda: (store, events)
        return
    uri, name = request.getfixturevalue("mongod").uri, request.getfixturevalue("database_name")
    keyring = Keyring.generate()
    async with AsyncExitStack() as stack:

        def make() -> tuple[SessionStore, EventLog]:
            client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(uri)
            stack.push_async_callback(client.close)
            return MongoSessionStore(client[name], keyring), MongoEventLog(client[name])

        yield make


@pytest.fixture
async def processes(fixture: Fixture, storage: Storage) -> AsyncIterator[tuple[Running, Running]]:
    """Two processes over one store."""
    async with AsyncExitStack() as stack:
        found = []
        for _ in range(2):
            store, events = storage()
            found.append(await stack.enter_async_context(serving(fixture.build, store=store, events=events)))
        yield found[0], found[1]


async def test_any_process_goes_on_with_a_session(
    processes: tuple[Running, Running], storage: Storage, fixture: Fixture
) -> None:
    """T10, T11, T15, S04, SEC-52: bound to user and client, no credential; a restart does not end it, DELETE does."""
    one, other = processes
    _, secret = await one.auth.sessions.create(user_id="ann", kind=CredentialKind.BEARER)
    ann, ann_there = one.client(secret.reveal()), other.client(secret.reveal())
    _, bob = await one.sign_in("bob")
    session = await Legacy.connect(ann)
    assert len(session.session_id) >= 43
    assert (await session.at(ann_there).told("add", a=1, b=2))["result"]["content"][0]["text"] == "3"
    again = await Legacy.connect(bob)
    for stranger in (session.at(bob), again.at(ann), Legacy(ann, "x" * 43)):
        for answer in (
            await stranger.post(request("ping")),
            await stranger.client.http.get("/mcp", headers=stranger.headers),
            await stranger.client.http.delete("/mcp", headers=stranger.headers),
        ):
            assert answer.status_code == 404
    assert (await session.at(one.client(None)).post(request("ping"))).status_code == 401
    assert (await ann.http.post("/mcp", json=request("ping"))).status_code == 400
    assert (await ann.http.post("/mcp", json=[request("ping")], headers=session.headers)).status_code == 400

    store, events = storage()
    async with serving(fixture.build, store=store, events=events) as restarted:
        later = session.at(restarted.client(secret.reveal()))
        assert (await later.told("add", a=2, b=2))["result"]["content"][0]["text"] == "4"

    assert (await session.at(ann_there).client.http.delete("/mcp", headers=session.headers)).status_code == 204
    async with asyncio.timeout(BOUND):
        while (await session.post(request("ping"))).status_code != 404:
            pass
    assert (await session.at(ann_there).post(request("ping"))).status_code == 404


async def test_answers_and_cancellations_find_the_process_that_waits(
    processes: tuple[Running, Running], fixture: Fixture
) -> None:
    """A question is answered, and a call cancelled, by a POST to the other process."""
    one, other = processes
    _, secret = await one.auth.sessions.create(user_id="ann", kind=CredentialKind.BEARER)
    session = await Legacy.connect(one.client(secret.reveal()))
    elsewhere = session.at(other.client(secret.reveal()))
    async with session.stream(request("tools/call", {"name": "ask", "arguments": {}}, id="q")) as stream:
        assert await stream.next() == {}  # the priming event
        question = await stream.next()
        assert question["method"] == "elicitation/create"
        answer = {"action": "accept", "content": {"word": "sesame"}}
        posted = await elsewhere.post({"jsonrpc": "2.0", "id": question["id"], "result": answer})
        assert (posted.status_code, posted.content) == (202, b"")
        (result,) = await stream.rest()
        assert result["id"] == "q"
        assert result["result"]["content"][0]["text"] == "sesame"
    async with session.stream(request("tools/call", {"name": "wait", "arguments": {}}, id=9)) as stream:
        await stream.next()
        await stream.next()
        cancel = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 9}}
        assert (await elsewhere.post(cancel)).status_code == 202
        (last,) = await stream.rest()
        assert last["error"]["code"] == -32800
    assert "cancelled" in fixture.log


async def test_a_lost_connection_is_no_cancellation(processes: tuple[Running, Running], fixture: Fixture) -> None:
    """T13, T14, T17, SEC-52: the call goes on, and its stream is read on elsewhere, from the last event that the
    client saw; nobody else reads it, and what was read is not sent again."""
    one, other = processes
    _, secret = await one.auth.sessions.create(user_id="ann", kind=CredentialKind.BEARER)
    session = await Legacy.connect(one.client(secret.reveal()))
    _, bob = await other.sign_in("bob")
    bobs = await Legacy.connect(bob)
    async with session.stream(request("tools/call", {"name": "wait", "arguments": {}}, id=5)) as stream:
        assert await stream.next() == {}
        said = await stream.next()
        assert said["params"]["data"] == "one"
        primed, seen = stream.ids
    fixture.gate.set()
    elsewhere = session.at(other.client(secret.reveal()))
    async with elsewhere.get(seen) as rest:
        messages = await rest.rest()
        assert messages[0]["params"]["data"] == "two"
        assert messages[1]["id"] == 5
        assert messages[1]["result"]["content"][0]["text"] == "went on"
        assert set(rest.events) == {"message"}
    async with elsewhere.get(primed) as everything:
        assert [message.get("id") for message in await everything.rest()] == [None, None, 5]
    async with bobs.get(seen) as nothing:
        assert await nothing.rest() == []
    assert "cancelled" not in fixture.log


async def test_the_standing_stream(processes: tuple[Running, Running]) -> None:
    """T12, T13: what changed reaches whoever asked to be told, once, by the stream opened last; what a tool says to the
    session is read on after a reconnect."""
    one, other = processes
    _, secret = await one.auth.sessions.create(user_id="ann", kind=CredentialKind.BEARER)
    session = await Legacy.connect(one.client(secret.reveal()))
    elsewhere = session.at(other.client(secret.reveal()))
    bus = EventLogBus(one.auth.events)
    assert (await session.answer(request("resources/subscribe", {"uri": "content://a"})))["result"] == {}
    refused = await session.answer(request("resources/subscribe", {"uri": "paid://a"}))
    assert refused["error"]["data"]["error"] == "insufficient_subscription"
    await session.call("touch")
    async with elsewhere.get() as first:
        early = await first.next()  # said before there was any stream to say it on
        assert early["params"] == {"uri": "content://a"}
        await until(lambda: len(other.auth.registry) == 1)
        await bus.publish(ResourceUpdated(uri="content://b"))
        await bus.publish(ResourceUpdated(uri="content://a"))
        await bus.publish(ToolsListChanged())
        told = [await first.next(), await first.next()]
        assert told[0] == {
            "jsonrpc": "2.0",
            "method": "notifications/resources/updated",
            "params": {"uri": "content://a"},
        }
        assert told[1]["method"] == "notifications/tools/list_changed"
        await session.call("touch")
        assert (await first.next())["params"] == {"uri": "content://a"}
        _, position = first.ids
        async with session.get() as second:
            assert await first.rest() == []
            await session.post(request("resources/unsubscribe", {"uri": "content://a"}))
            await bus.publish(ResourceUpdated(uri="content://a"))
            await bus.publish(ToolsListChanged())
            while (message := await second.next())["method"] != "notifications/tools/list_changed":
                assert message["method"] == "notifications/resources/updated"
    await session.call("touch")
    async with elsewhere.get(position) as resumed:
        assert (await resumed.next())["params"] == {"uri": "content://a"}


async def test_older_revisions_and_log_levels(fixture: Fixture) -> None:
    """T16, T17: no event without data before 2025-11-25; a level holds for every process, from the next message on."""
    async with serving(fixture.build) as running:
        _, ann = await running.sign_in()
        for version in ("2025-03-26", "2025-06-18"):
            session = await Legacy.connect(ann, version)
            async with session.stream(request("tools/call", {"name": "say", "arguments": {}})) as stream:
                said = await stream.rest()
                assert [message.get("params", {}).get("data") for message in said] == ["detail", "alarm", None]
                assert len(stream.ids) == 3
        assert (await session.answer(request("logging/setLevel", {"level": "error"})))["result"] == {}
        async with session.stream(request("tools/call", {"name": "say", "arguments": {}})) as stream:
            said = await stream.rest()
            assert [message.get("params", {}).get("data") for message in said] == ["alarm", None]
        unsupported = await ann.http.post(
            "/mcp", json=request("ping"), headers=session.headers | {"MCP-Protocol-Version": "2024-13-41"}
        )
        assert unsupported.status_code == 400
        stateless = await ann.call("logging/setLevel", {"level": "error"})
        assert stateless.status_code == 404  # the newest revision has no such thing


async def test_a_session_that_loses_its_user_ends_its_streams_at_once(fixture: Fixture) -> None:
    """G1: streams close without a word of ours, what runs for them stops, and the next request is told why."""
    async with serving(fixture.build) as running:
        signed_in, ann = await running.sign_in()
        session = await Legacy.connect(ann)
        call = request("tools/call", {"name": "wait", "arguments": {}})
        async with session.stream(call) as answers, session.get() as standing:
            assert await answers.next() == {}
            assert (await answers.next())["params"]["data"] == "one"
            await until(lambda: len(running.auth.registry) == 2)
            await running.auth.sessions.revoke(signed_in.id)
            assert await answers.rest() == []
            assert await standing.rest() == []
        await until(lambda: "cancelled" in fixture.log)
        assert (await session.post(request("ping"))).status_code == 401
        await until(lambda: len(running.auth.registry) == running.auth.registry.leaving == 0)


async def test_a_quiet_call_becomes_a_stream_and_a_shutdown_is_told(fixture: Fixture) -> None:
    """The heartbeat keeps a silent call's connection; a process that ends answers what it could not finish."""
    async with serving(fixture.build, heartbeat=0.05) as running:
        _, ann = await running.sign_in()
        session = await Legacy.connect(ann)
        quiet = request("tools/call", {"name": "wait", "arguments": {"speak": False}}, id=3)
        async with session.stream(quiet) as stream:
            assert stream.response.headers["Content-Type"] == "text/event-stream"
            assert await stream.next() == {}
            (primed,) = stream.ids
        await until(lambda: not len(running.auth.registry))
        async with session.get(primed) as rest:
            fixture.gate.set()
            assert [message.get("id") for message in await rest.rest()] == [None, 3]


@pytest.mark.parametrize("what", ["session", "grant"])
async def test_a_call_without_a_listener_ends_with_what_allowed_it(
    processes: tuple[Running, Running], fixture: Fixture, what: str
) -> None:
    """SEC-11, SEC-50: who begins calls and hangs up gains nothing by it: the tool stops when the session, or the
    client's grant alone, is ended in another process."""
    one, other = processes
    sessions = one.auth.sessions
    made, secret = await sessions.create(user_id="ann", kind=CredentialKind.BEARER)
    if what == "grant":
        now, url = one.auth.clock.time(), one.auth.options.public_url
        grant = Grant(
            id="g",
            client_id="c",
            redirect_uri="",
            audience=(f"{url}/mcp",),
            scopes=frozenset(),
            created_at=now,
            last_used=now,
        )
        secret, token = issue(CredentialKind.BEARER, now=now, expires_at=now + 600, grant="g", audience=grant.audience)
        await sessions.update(made.id, lambda stored: with_grant(stored, grant, token, now=now))
    session = await Legacy.connect(one.client(secret.reveal()))
    async with session.stream(request("tools/call", {"name": "wait", "arguments": {}}, id=7)) as stream:
        await stream.next()
        await stream.next()
    await until(lambda: not len(one.auth.registry))
    assert fixture.log == ["waits"]
    if what == "grant":
        await other.auth.sessions.end_grant(made.id, "g", reason="ended by its user")
    else:
        await other.auth.sessions.revoke(made.id)
    await until(lambda: fixture.log == ["waits", "cancelled"])
    await until(lambda: not one.endpoint.hosted.calls.session_ids())
