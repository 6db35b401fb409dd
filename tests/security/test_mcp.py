"""MCP and the authorization server under hostile requests: whose answer is whose, and what no body can break."""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.subscriptions import ToolsListChanged

from tests.authorization_server.kit import REDIRECT
from tests.authorization_server.kit import world as authorization_server
from tests.mcp.legacy import Legacy, request
from tests.mcp.serving import Client, Running, endpoint_of, named, serving, until
from tests.parts.sse_client import EventStreamParser, SSEClient
from tests.security.kit import KeptAlive, kept_alive, logged, raw
from tests.security.test_streams import INJECTIONS
from tornado_sse_auth import SSEAuthenticationMiddleware
from tornado_sse_auth.mcp import handler
from tornado_sse_auth.mcp.access import META_KEY
from tornado_sse_auth.mcp.message_stream import MessageStream
from tornado_sse_auth.mcp.messages import read_message
from tornado_sse_auth.mcp.session_records import session_key

pytestmark = pytest.mark.filterwarnings("ignore::mcp.shared.exceptions.MCPDeprecationWarning")


def build(auth: SSEAuthenticationMiddleware) -> MCPServer[Any]:
    """A server whose answers name the caller."""
    server = named(auth)

    @server.tool()
    async def echo(word: str) -> str:
        await asyncio.sleep(0)
        return word

    @server.tool()
    async def tell(word: str, ctx: Context[Any, Any]) -> str:
        await ctx.info(word)
        return word

    @server.resource("content://{slug}")
    def content(slug: str) -> str:
        return slug[:10]

    return server


async def test_equal_ids_of_two_users_never_meet(caplog: pytest.LogCaptureFixture) -> None:
    """SEC-52, SEC-54; CVE-2026-25536, CVE-2026-33946: two users and two clients of one user send requests with the same
    ids at the same time, a thousand rounds: each gets the answer to their own question, which nobody may keep."""
    async with serving(build) as running:
        clients = [(await running.sign_in(user))[1] for user in ("ann", "ann", "bob")]

        async def ask(client: Client, connection: KeptAlive, number: int, word: str) -> None:
            parameters = {"name": "echo", "arguments": {"word": word}}
            message = client.modern("tools/call", parameters, request_id=number)
            headers = {**client.http.headers, **message["headers"], "Content-Type": "application/json"}
            _, fields, answer = await connection.request("POST", "/mcp", headers, json.dumps(message["json"]).encode())
            assert (fields["cache-control"], fields.get("etag")) == ("no-store", None)
            body = json.loads(answer)
            assert (body["id"], body["result"]["content"][0]["text"]) == (number, word)

        async with AsyncExitStack() as stack:
            pairs = [(client, await stack.enter_async_context(kept_alive(running.url))) for client in clients]
            for number in range(1000):
                await asyncio.gather(*(ask(*pair, number, f"{at} {number}") for at, pair in enumerate(pairs)))


async def test_last_event_id_leads_to_nobody_elses_messages() -> None:
    """SEC-48, SEC-52; MCP T13: another user's event id, ids of every form, control characters, a megabyte: refused, or
    an end at once, or one's own standing stream; never another session's message."""
    async with serving(build) as running:
        (_, ann), (_, mallory) = await running.sign_in("ann"), await running.sign_in("mallory")
        hers, his = await Legacy.connect(ann), await Legacy.connect(mallory)
        call = request("tools/call", {"name": "tell", "arguments": {"word": "a secret of ann"}})
        async with hers.stream(call) as stream:
            assert "a secret of ann" in json.dumps(await stream.rest())
            known = stream.ids
        assert len(known) == 3
        async with hers.get(known[0]) as stream:
            assert "a secret of ann" in json.dumps(await stream.rest())  # to her it leads
        key = session_key(hers.session_id)
        for value in (*known, "*.7", "$ne.7", f"{'x' * 64}.{'9' * 18}", f"{key}.7", "0:0.7"):
            async with his.get(value) as stream:
                assert stream.response.status_code == 200
                assert await stream.rest() == []
        for value in ("x", "0.1", "0.-1", "1.0x1", "1." + "9" * 19, "{}", "." * 100, "a" * 10_000, f"{key}:{known[1]}"):
            async with his.get(value) as stream:
                assert stream.response.status_code == 200
                await until(lambda: len(running.auth.registry) == 1)
                await running.endpoint.bus.publish(ToolsListChanged())
                assert (await stream.next() or {})["method"] == "notifications/tools/list_changed"
            await until(lambda: not len(running.auth.registry))
        lines = {"Host": running.url.removeprefix("http://"), **mallory.http.headers, **his.headers}
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items() if name.lower() != "connection")
        for value in (b"a" * 1_000_000, known[0].encode() + b"\0", b"1.0\x07", b"1\r\x0b.0"):
            start = f"GET /mcp HTTP/1.1\r\n{head}Connection: close\r\nLast-Event-ID: ".encode()
            answer = await raw(running.url, start + value + b"\r\n\r\n")
            assert answer == b"" or answer.startswith(b"HTTP/1.1 400 "), answer[:100]
        assert await working(running)


async def test_what_a_tool_says_is_one_message() -> None:
    """SEC-12, SEC-47; CVE-2026-44214: line breaks of all kinds, words of the format, NUL, lone surrogates, in what a
    tool tells and in what it answers: one event each on the streams of both revisions and of `/sse`, which says just
    that."""
    log_level = {"io.modelcontextprotocol/logLevel": "info"}
    hello = {"protocolVersion": "2024-11-05", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}

    async def post(client: Client, path: str, message: Any, headers: Mapping[str, str]) -> httpx.Response:
        body = json.dumps(message).encode()  # lone surrogates as escapes
        return await client.http.post(path, content=body, headers={**headers, "Content-Type": "application/json"})

    async with serving(build) as running:
        _, ann = await running.sign_in("ann")
        legacy = await Legacy.connect(ann)
        bearer = ann.http.headers["Authorization"].removeprefix("Bearer ")
        async with SSEClient(f"{running.url}/sse", bearer=bearer) as sse:
            place = (await sse.next("endpoint")).data
            await post(ann, place, request("initialize", hello), {})
            assert (await sse.next()).json()["result"]["protocolVersion"] == "2024-11-05"
            for word in (*INJECTIONS, "a\ud800b"):
                call = {"name": "tell", "arguments": {"word": word}}
                modern = ann.modern("tools/call", call, **log_level)
                by_sse = await post(ann, place, request("tools/call", call), {})
                assert by_sse.status_code == 202
                streams = [[await sse.next(), await sse.next()]]
                for message, headers in (
                    (modern["json"], modern["headers"]),
                    (request("tools/call", call), legacy.headers),
                ):
                    answer = await post(ann, "/mcp", message, headers)
                    assert answer.headers["Content-Type"] == "text/event-stream"
                    streams.append([event for event in EventStreamParser().feed(answer.content) if event.data])
                for events in streams:
                    assert [event.event for event in events] == ["message", "message"]
                    told, answered = (event.json() for event in events)
                    assert (told["params"]["data"], answered["result"]["content"][0]["text"]) == (word, word)


@pytest.mark.parametrize("what", ["listen", "standing", "sse"])
async def test_revocation_frees_the_stream_of_a_client_that_does_not_read(what: str) -> None:
    """SEC-51, REL-21: every kind of stream that stays open: registry, task and socket, and not when the kernel would
    give up."""
    async with serving(build) as running:
        session, ann = await running.sign_in("ann")
        legacy = await Legacy.connect(ann)
        tasks = len(asyncio.all_tasks())
        listen = ann.modern("subscriptions/listen", {"notifications": {"toolsListChanged": True}})
        method, path, headers, body = {
            "listen": ("POST", "/mcp", listen["headers"], json.dumps(listen["json"])),
            "standing": ("GET", "/mcp", legacy.headers, ""),
            "sse": ("GET", "/sse", {}, ""),
        }[what]
        fields = {**ann.http.headers, "Connection": "close", "Content-Type": "application/json", **headers}
        fields |= {"Host": running.url.removeprefix("http://"), "Content-Length": str(len(body))}
        lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items()), "", body]
        host, _, port = fields["Host"].partition(":")
        reader, writer = await asyncio.open_connection(host, int(port), limit=1024)
        try:
            writer.write("\r\n".join(lines).encode())
            assert b" 200 " in await reader.readline()
            await until(lambda: running.auth.registry.count(session.id))
            (stream,) = running.auth.registry._groups[session.id].streams
            assert isinstance(stream, MessageStream)
            while stream._opened.queued < 100_000:
                stream.push(b'"' + b"x" * 50_000 + b'"')
                await asyncio.sleep(0)
            assert stream.ended is None
            connection = stream._opened._iostream
            await running.auth.sessions.revoke(session.id)
            await until(lambda: connection.closed() and not running.auth.registry.leaving)
            await until(lambda: len(asyncio.all_tasks()) <= tasks)
        finally:
            writer.transport.abort()


UNREADABLE: list[Any] = [
    {"scopes": 5},
    {"scope": ["a:read"]},
    {"permissions": [["trade"]]},
    {"subscription": "platinum"},
    "text",
    ["a:read"],
]


async def test_a_rule_that_cannot_be_read_lets_nobody_in() -> None:
    """SEC-17: of a tool, in sessions and without: refused as our own fault, before anything runs."""
    ran: list[int] = []

    def unreadable(auth: SSEAuthenticationMiddleware) -> MCPServer[Any]:
        server = named(auth)
        for number, rule in enumerate(UNREADABLE):

            @server.tool(name=f"tool{number}", meta={META_KEY: rule})
            async def tool() -> str:
                ran.append(1)
                return "in"

        return server

    async with serving(unreadable) as running:
        _, ann = await running.sign_in(subscription="pro", scopes={"a:read"}, permissions={"trade"})
        legacy = await Legacy.connect(ann)
        for number in range(len(UNREADABLE)):
            for answer in (await ann.tool(f"tool{number}"), await legacy.call(f"tool{number}")):
                assert answer.status_code == 500
                assert answer.json()["error"]["data"]["error"] == "server_error"
    assert ran == []


BODIES: list[bytes] = [
    b'{"jsonrpc":"2.0","id":1,"method":"resources/read","params":{"uri":"other://' + b"a" * 50_000 + b'"}}',
    b'{"jsonrpc":"2.0","id":1,"method":"resources/read","params":{"uri":"content://' + b"/" * 50_000 + b'"}}',
    b"",
    b"\xff\xfe\x00",
    b"null",
    b"[]",
    b"{}",
    b'"tools/list"',
    b"[" * 10_000,
    b'{"a":' * 10_000,
    b"9" * 100_000,
    b'{"jsonrpc":"2.0","id":1e400,"method":"tools/list"}',
    b'{"jsonrpc":"2.0","id":{"$gt":""},"method":"tools/list"}',
    b'{"jsonrpc":"2.0","id":null,"method":"tools/list","params":[]}',
    b'{"jsonrpc":"2.0","id":1,"method":"\\ud800"}',
    b'{"jsonrpc":"2.0","id":1,"method":{"a":1}}',
    b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":["echo"],"arguments":7}}',
    b'{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":{},"capabilities":[],"clientInfo":7}}',
    b'{"jsonrpc":"1.0","id":1,"result":{}}',
    json.dumps([{"jsonrpc": "2.0", "id": n, "method": "tools/list"} for n in range(1000)]).encode(),
]


async def send(client: Client, body: bytes, **headers: str) -> bool:
    """POST to `/mcp`; whether it was refused, or had no effect, in a way that a client can read."""
    answer = await client.http.post("/mcp", content=body, headers={"Content-Type": "application/json", **headers})
    assert answer.status_code < 500, (body[:80], answer.text)
    document = answer.json() if answer.content else {}
    assert not answer.content or {"error", "result"} & set(document), document
    return answer.status_code == 202 or "error" in document


async def test_no_body_breaks_the_mcp_endpoint(caplog: pytest.LogCaptureFixture) -> None:
    """SEC-53; CVE-2025-53365, CVE-2026-0621: hostile JSON, with and without the headers of either revision: an error
    that a client can read, no traceback, and the next request is served."""
    chance = random.Random(53)
    async with serving(build) as running:
        _, client = await running.sign_in()
        good = client.modern("tools/call", {"name": "echo", "arguments": {"word": "x"}})
        whole = json.dumps(good["json"]).encode()
        for body in BODIES:
            for headers in ({}, good["headers"], {"Mcp-Session-Id": "x" * 43}, {"MCP-Protocol-Version": "0"}):
                assert await send(client, body, **headers), body[:80]
        for _ in range(300):
            broken = bytearray(whole)
            for _ in range(chance.randint(1, 4)):
                broken[chance.randrange(len(broken))] = chance.choice(b'{}[]",:\\0\xff9a')
            await send(client, bytes(broken), **good["headers"])
        answer = await client.tool("echo", word="still here")
        assert answer.json()["result"]["content"][0]["text"] == "still here"
        assert await working(running)
    assert "Traceback" not in "\n".join(map(logged, caplog.records))


async def test_how_deep_json_may_be_is_one_option_for_every_body() -> None:
    """SEC-53: `max_json_depth` holds for both ways of MCP's messages and both transports, for the JSON of `/auth/*`,
    and for a registration; a level less is read."""

    def deep(levels: int) -> Any:
        return [] if levels == 1 else [deep(levels - 1)]

    def message(levels: int) -> dict[str, Any]:
        return {"jsonrpc": "2.0", "id": 1, "method": "ping", "params": {"x": deep(levels - 2)}}

    for depth in (8, 90):
        async with serving(build, max_json_depth=depth) as running:
            _, client = await running.sign_in()
            stateful = await Legacy.connect(client)
            _, cookie = await running.auth.sessions.create(user_id="ann")
            page = {"Cookie": f"{running.auth.cookie_name}={cookie.reveal()}", "Origin": running.url}
            async with client.stream(method="GET", url="/sse") as stream:
                messages = await endpoint_of(stream)
                for levels, statuses in ((depth, {200, 202}), (depth + 1, {400})):
                    modern = client.modern("tools/list", {"x": deep(levels - 2)})
                    for answer in (
                        await client.http.request(**modern),
                        await stateful.post(message(levels)),
                        await client.http.post(messages, json=message(levels)),
                        await running.client(None).http.post(
                            "/auth/token",
                            json={"grant": "session", "x": deep(levels - 1)},
                            headers={**page, "Authorization": ""},
                        ),
                    ):
                        assert answer.status_code in statuses, (levels, answer.text)
    async with authorization_server(max_json_depth=8) as served:
        described = {"redirect_uris": [REDIRECT], "token_endpoint_auth_method": "none"}
        for levels, status in ((8, 201), (9, 400)):
            answer = await served.http.post("/oauth/register", json={**described, "x": deep(levels - 1)})
            assert answer.status_code == status


async def working(running: Running) -> bool:
    """Whether others are served."""
    _, other = await running.sign_in("other")
    return (await other.tool("echo", word="y")).status_code == 200


async def test_nobody_unknown_makes_the_server_read_megabytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """SEC-08, SEC-13, SEC-53: JSON of four megabytes holds up the loop for a second; without a good credential it is
    401 and never read. A small one is, for the id that its error names."""
    read: list[int] = []

    def reading(body: bytes, **bounds: int) -> Any:
        read.append(len(body))
        return read_message(body, **bounds)

    monkeypatch.setattr(handler, "read_message", reading)
    small = b'{"jsonrpc":"2.0","id":7,"method":"ping","params":{}}'
    big = b'{"jsonrpc":"2.0","id":7,"method":"x","params":{"a":[' + b"[]," * 1_000_000 + b"0]}}"
    async with serving(build) as running:
        for bearer in (None, "A" * 43):
            client = running.client(bearer)
            headers = {"Content-Type": "application/json"}
            for body in (small, big):
                answer = await client.http.post("/mcp", content=body, headers=headers)
                assert answer.status_code == 401
            assert answer.json()["error"] in ("authorization_required", "invalid_token")
    assert read == [len(small)] * 2


FORMS = [
    b"",
    b"\xff=\xfe",
    b"grant_type=authorization_code",
    b"grant_type=authorization_code&grant_type=refresh_token",
    b"grant_type=refresh_token&refresh_token=" + b"A" * 60_000,
    b"grant_type[$ne]=x&client_id[$gt]=",
    b"a=b&" * 10_000,
    b"grant_type=%00&client_id=%ff&code=%0d%0aX:%20y",
    b'{"grant_type":"refresh_token"}',
]


async def test_no_body_breaks_the_authorization_server(caplog: pytest.LogCaptureFixture) -> None:
    """SEC-41, SEC-53, SEC-57: hostile forms and JSON at every endpoint: an error of its RFC, never 500, nothing of the
    request in the answer, `no-store`, no traceback."""
    caplog.set_level(logging.DEBUG)
    canary = b"canary-of-a-client"
    async with authorization_server(max_bad_credentials=10_000) as served:
        installed = await served.installation()
        for path in ("/oauth/token", "/oauth/revoke", "/oauth/register", "/oauth/authorize"):
            for kind in ("application/x-www-form-urlencoded", "application/json", "multipart/form-data", ""):
                for body in (*FORMS, *BODIES, b"refresh_token=" + canary + b"&client_secret=" + canary):
                    answer = await served.http.post(path, content=body[:60_000], headers={"Content-Type": kind})
                    assert 400 <= answer.status_code < 500, (path, kind, body[:60], answer.status_code)
                    assert answer.headers["Cache-Control"] == "no-store"
                    assert canary.decode() not in answer.text
                    if answer.status_code == 429:
                        assert path == "/oauth/register"
        assert (await installed.get()).status_code == 200
    written = "\n".join(map(logged, caplog.records))
    assert "Traceback" not in written
    assert canary.decode() not in written
