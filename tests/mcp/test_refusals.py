"""What a client is told that may not: status, challenge and JSON-RPC message of each row of the error table."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx
import pytest
from mcp.server.mcpserver import Context, MCPServer

from tests.mcp.legacy import Legacy, request
from tests.mcp.serving import MessageStreamReader, Running, named, serving
from tests.parts.process import free_port
from tornado_sse_auth import OAuthProvider, Secret, SSEAuthenticationMiddleware, TokenSet
from tornado_sse_auth.identity import SessionState
from tornado_sse_auth.mcp import require, requires, upstream_access_token


def build(auth: SSEAuthenticationMiddleware) -> MCPServer[Any]:
    server = named(auth)

    @server.tool(meta=requires(scopes={"a:read", "b:read"}))
    async def scoped() -> str:
        return "in"

    @server.tool(meta=requires(permissions={"trade"}))
    async def permitted() -> str:
        return "in"

    @server.tool(meta=requires(subscription="pro"))
    async def paid() -> str:
        return "in"

    @server.tool()
    async def item(ctx: Context[Any, Any], kind: str, speak: bool = False) -> str:
        if speak:
            await ctx.report_progress(0, 1)
        demands: dict[str, dict[str, Any]] = {
            "scope": {"scopes": {"a:read", "b:read"}},
            "permission": {"permissions": {"trade"}},
            "subscription": {"subscription": "pro"},
        }
        require(**demands[kind])
        return "in"

    @server.resource("content://{slug}", meta=requires(subscription="pro"))
    async def content(slug: str) -> str:
        return slug

    @server.tool()
    async def upstream() -> str:
        return (await upstream_access_token()).reveal()

    @server.prompt()
    async def paid_prompt() -> str:
        require(subscription="pro")
        return "in"

    return server


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    async with serving(build) as running:
        yield running


async def test_a_missing_scope_is_a_challenge(running: Running) -> None:
    """All that the call needs in one challenge, whether the tool declares it or asks while it runs (SEC-17)."""
    _, ann = await running.sign_in(scopes={"b:read"})
    for answer in (await ann.tool("scoped"), await ann.tool("item", kind="scope")):
        assert answer.status_code == 403
        challenge = answer.headers["WWW-Authenticate"]
        assert 'error="insufficient_scope"' in challenge
        assert 'scope="a:read b:read"' in challenge
        assert "resource_metadata=" in challenge
        error = answer.json()["error"]
        assert error["data"]["error"] == "insufficient_scope"
        assert "request_id" in error["data"]
    _, bob = await running.sign_in(scopes={"a:read", "b:read"})
    assert (await bob.tool("item", kind="scope")).json()["result"]["content"][0]["text"] == "in"


@pytest.mark.parametrize(
    ("call", "code", "names"),
    [
        (("permitted", {}), "insufficient_permission", "trade"),
        (("paid", {}), "insufficient_subscription", "pro"),
        (("item", {"kind": "permission"}), "insufficient_permission", "trade"),
        (("item", {"kind": "subscription"}), "insufficient_subscription", "pro"),
    ],
)
async def test_what_no_sign_in_can_bring_is_a_result(
    running: Running, call: tuple[str, dict[str, Any]], code: str, names: str
) -> None:
    """On a 403 the TypeScript SDK throws and the Python SDK signs in again: the model reads what lacks instead."""
    _, ann = await running.sign_in(subscription="free")
    answer = await ann.tool(call[0], **call[1])
    assert answer.status_code == 200
    assert "WWW-Authenticate" not in answer.headers
    result = answer.json()["result"]
    assert result["isError"] is True
    assert result["resultType"] == "complete"
    assert names in result["content"][0]["text"]
    assert running.url in result["content"][0]["text"]
    assert result["_meta"]["tornado-sse-auth/error"]["error"] == code
    assert running.metrics.counters[f"auth.error.{code}"] == 1
    _, bob = await running.sign_in("bob", subscription="pro", permissions={"trade"})
    assert (await bob.tool(call[0], **call[1])).json()["result"]["isError"] is False


async def test_the_same_once_the_answer_is_a_stream(running: Running) -> None:
    _, ann = await running.sign_in()
    for kind, member in (("subscription", "result"), ("scope", "error")):
        arguments = {"name": "item", "arguments": {"kind": kind, "speak": True}}
        async with ann.stream(**ann.modern("tools/call", arguments, progressToken=1)) as stream:
            *progress, last = await stream.rest()
        assert [message["method"] for message in progress] == ["notifications/progress"]
        assert member in last
        if kind == "subscription":
            assert last["result"]["isError"] is True
            assert "pro" in last["result"]["content"][0]["text"]
        else:
            assert last["error"]["data"]["error"] == "insufficient_scope"


@pytest.mark.parametrize(
    ("method", "params"), [("resources/read", {"uri": "content://tea"}), ("prompts/get", {"name": "paid_prompt"})]
)
async def test_a_resource_or_prompt_that_is_paid_for_is_an_error(
    running: Running, method: str, params: dict[str, Any]
) -> None:
    _, ann = await running.sign_in(subscription="free")
    answer = await ann.call(method, params)
    assert answer.status_code == 200
    error = answer.json()["error"]
    assert "pro" in error["message"]
    assert running.url in error["message"]
    assert error["data"]["error"] == "insufficient_subscription"


async def test_who_must_sign_in_is_told_so_by_status(running: Running) -> None:
    """SEC-13, SEC-14, SEC-15."""
    session, ann = await running.sign_in()
    _, cookie = await running.auth.sessions.create(user_id="cookie")
    nobody = await running.client(None).tool("item", kind="scope")
    assert nobody.status_code == 401
    assert nobody.headers["WWW-Authenticate"].startswith("Bearer ")
    assert "error=" not in nobody.headers["WWW-Authenticate"]
    assert "resource_metadata=" in nobody.headers["WWW-Authenticate"]
    assert nobody.json()["error"]["data"]["error"] == "authorization_required"
    digest = session.credentials[0].digest.hex()
    for wrong in ("unknown", cookie.reveal(), session.id, digest, Secret.random().reveal()):
        refused = await running.client(wrong).tool("item", kind="scope")
        assert refused.status_code == 401
        assert 'error="invalid_token"' in refused.headers["WWW-Authenticate"]
        assert refused.json()["error"]["data"]["error"] == "invalid_token"
    for malformed in ("a b", "a,b", '"quoted"'):
        refused = await running.client(malformed).tool("item", kind="scope")
        assert refused.status_code == 400
        assert refused.json()["error"]["data"]["error"] == "invalid_request"
    token = ann.http.headers["Authorization"].removeprefix("Bearer ")
    request = ann.modern("tools/list")
    request["url"] += f"?access_token={token}"
    del ann.http.headers["Authorization"]
    assert (await ann.http.request(**request)).status_code == 401
    # A person's browser that strays here is not sent to sign in.
    page = await running.client(None).http.get("/mcp", headers={"Accept": "text/html"})
    assert page.status_code == 401

    _, bob = await running.sign_in("bob")
    bobs = (await running.auth.sessions.sessions_of("bob"))[0]
    await running.auth.sessions.update(
        bobs.id, lambda stored: replace(stored, state=SessionState.REAUTHORIZATION, reauth=Secret.random())
    )
    needed = await bob.tool("item", kind="scope")
    assert needed.status_code == 401
    assert 'error="invalid_token"' in needed.headers["WWW-Authenticate"]


async def test_foreign_pages_and_hosts_are_refused_before_anything_is_read(running: Running) -> None:
    """T20, SEC-20: first Host, then Origin, then the credential; then the rest."""
    _, ann = await running.sign_in()
    request = ann.modern("tools/list")
    for headers, status, code in (
        ({"Host": "evil.example"}, 421, "invalid_host"),
        ({"Host": "evil.example", "Origin": "https://evil.example"}, 421, "invalid_host"),
        ({"Origin": "https://evil.example"}, 403, "invalid_origin"),
        ({"Origin": "null", "Authorization": "Bearer unknown"}, 403, "invalid_origin"),
    ):
        answer = await ann.http.request(**{**request, "headers": request["headers"] | headers})
        assert (answer.status_code, answer.json()["error"]["data"]["error"]) == (status, code)
        assert "WWW-Authenticate" not in answer.headers
    for bearer, body, status in ((None, b"{", 401), (ann, b"{", 400), (ann, b"[" * 100_000, 400)):
        client = bearer or running.client(None)
        answer = await client.http.post("/mcp", content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code == status


TOO_MANY = "too_many_streams"
PATHS = {"/mcp": "POST", "/sse": "GET", "/messages": "POST"}


async def test_pages_of_allowed_origins_are_clients_too() -> None:
    """A preflight needs no token and may name any header, a tool's own `Mcp-Param-*` too; the page can read what tells
    a client how to go on. All this for `allowed_origins` alone."""
    page = "https://inspector.example"
    wanted = "authorization,content-type,mcp-param-region,mcp-protocol-version"
    async with serving(build, allowed_origins=[page]) as running:
        _, ann = await running.sign_in()
        for path in PATHS:
            ask = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": wanted}
            nobody = running.client(None).http
            asked = await nobody.options(path, headers={"Origin": page, **ask})
            assert (asked.status_code, asked.content) == (204, b"")
            assert asked.headers["Access-Control-Allow-Origin"] == page
            assert asked.headers["Access-Control-Allow-Headers"] == wanted
            stranger = await nobody.options(path, headers={"Origin": "https://evil.example", **ask})
            assert stranger.status_code == 403
            assert "Access-Control-Allow-Origin" not in stranger.headers
        request = ann.modern("tools/list")
        for client, status in ((ann, 200), (running.client(None), 401)):
            read = await client.http.request(**{**request, "headers": request["headers"] | {"Origin": page}})
            assert read.status_code == status
            assert read.headers["Access-Control-Allow-Origin"] == page
            exposed = set(read.headers["Access-Control-Expose-Headers"].split(", "))
            assert exposed >= {"Mcp-Session-Id", "WWW-Authenticate", "MCP-Protocol-Version", "Retry-After"}


@pytest.mark.parametrize("path", PATHS)
async def test_every_path_answers_by_the_error_table(path: str) -> None:
    """Status, code and challenge of each row, on each path; where the body is a request, in a JSON-RPC message."""
    method = PATHS[path]
    resource = "/mcp" if path == "/mcp" else "/sse"
    async with serving(build, max_streams=1) as running:
        session, ann = await running.sign_in()
        token = ann.http.headers["Authorization"]
        posted = ann.modern("tools/list")["json"]

        async def ask(**changes: Any) -> httpx.Response:
            headers = {"Authorization": token, "MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/list"}
            headers |= changes.pop("headers", {})
            headers = {name: value for name, value in headers.items() if value}
            request = {"method": method, "url": path, **({"json": posted} if method == "POST" else {}), **changes}
            async with httpx.AsyncClient(base_url=running.url, trust_env=False, timeout=20) as client:
                return await client.request(headers=headers, **request)

        def refused(answer: httpx.Response, status: int, code: str) -> str:
            body = answer.json()
            if answer.request.method == "POST":
                assert body["id"] == posted["id"]
                body = body["error"]["data"]
            assert (answer.status_code, body["error"]) == (status, code)
            assert body["request_id"] == answer.headers["X-Request-ID"]
            assert answer.headers["Cache-Control"] == "no-store"
            assert "Location" not in answer.headers
            challenge = answer.headers.get("WWW-Authenticate", "")
            assert bool(challenge) is (status == 401)
            if challenge:
                metadata = f"{running.url}/.well-known/oauth-protected-resource{resource}"
                assert f'resource_metadata="{metadata}"' in challenge
            return challenge

        nobody = await ask(headers={"Authorization": "", "Accept": "text/html"})
        assert "error=" not in refused(nobody, 401, "authorization_required")
        unknown = await ask(headers={"Authorization": "Bearer unknown"})
        assert 'error="invalid_token"' in refused(unknown, 401, "invalid_token")
        refused(await ask(headers={"Authorization": "Bearer a b"}), 400, "invalid_request")
        refused(await ask(headers={"Origin": "https://evil.example"}), 403, "invalid_origin")
        refused(await ask(headers={"Host": "evil.example"}), 421, "invalid_host")
        refused(await ask(method="PATCH"), 405, "method_not_allowed")
        if method == "POST":
            assert (await ask(headers={"Content-Type": "text/plain"})).status_code == 415
        if path == "/messages":
            refused(await ask(), 400, "invalid_request")
            refused(await ask(url="/messages?session_id=unknown"), 404, "not_found")
        if path != "/messages":
            # Whoever wants a stream beyond what the process holds is told when to return.
            async with ann.listen(toolsListChanged=True) as stream:
                assert await stream.next() is not None
                listen = ann.modern("subscriptions/listen", {"notifications": {}}, request_id=posted["id"])
                wanted = {"json": listen["json"]} if path == "/mcp" else {}
                full = await ask(**wanted, headers=listen["headers"] if path == "/mcp" else {})
                refused(full, 503, "overloaded")
                assert int(full.headers["Retry-After"]) >= 1
        await running.auth.sessions.update(
            session.id, lambda stored: replace(stored, state=SessionState.REAUTHORIZATION, reauth=Secret.random())
        )
        assert 'error="invalid_token"' in refused(await ask(), 401, "authorization_required")
        await running.auth.sessions.revoke(session.id)
        assert 'error="invalid_token"' in refused(await ask(), 401, "invalid_token")


async def test_what_is_too_much_or_away_is_told_with_when_to_return() -> None:
    """SEC-61: the rows of the error table with 413, 429 and 503: who asks for too much, and what the provider
    is needed for. That of the store is in `test_foreign_tokens`."""

    def refused(answer: httpx.Response, status: int, code: str) -> None:
        body = answer.json()
        error = body["error"]["data"] if "jsonrpc" in body else body
        assert (answer.status_code, error["error"]) == (status, code)
        assert "WWW-Authenticate" not in answer.headers
        assert (status == 413) is ("Retry-After" not in answer.headers)

    away = OAuthProvider(issuer=f"http://127.0.0.1:{free_port()}", client_id="c", timeout=2.0)
    expired = TokenSet(
        access_token=Secret("access"), refresh_token=Secret("refresh"), expires_at=time.time() - 60, issued_at=1.0
    )
    async with serving(build, provider=away, max_streams_per_user=1, max_bad_credentials=6) as running:
        _, ann = await running.sign_in(token_set=expired)
        refused(await ann.tool("upstream"), 503, "provider_unavailable")
        session = await Legacy.connect(ann)
        refused(await session.call("upstream"), 503, "provider_unavailable")
        async with ann.stream(method="GET", url="/sse") as stream:
            place = (await endpoint_of(stream)).removeprefix("data: ")
            refused(await ann.http.request(**ann.modern("subscriptions/listen", {"notifications": {}})), 429, TOO_MANY)
            refused(await session.client.http.get("/mcp", headers=session.headers), 429, TOO_MANY)
            refused(await ann.http.get("/sse"), 429, TOO_MANY)
            large = request("initialize", {"clientInfo": {"name": "x" * 70_000, "version": "1"}})
            for path in ("/mcp", place):
                refused(await ann.http.post(path, json=large), 413, "request_too_large")
            hello = {"protocolVersion": "2024-11-05", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
            for message in (request("initialize", hello), request("tools/call", {"name": "upstream", "arguments": {}})):
                assert (await ann.http.post(place, json=message)).status_code == 202
                answer = await stream.next()
            assert answer is not None
            assert answer["error"]["data"]["error"] == "provider_unavailable"
        for number in range(9):
            path, method = list(PATHS.items())[number % 3]
            guess = await running.client("B" * 43).http.request(method, path, json=request("ping"))
            if number < 6:
                assert guess.status_code == 401
            else:
                refused(guess, 429, "rate_limited")
        assert (await ann.tool("scoped")).status_code == 403


async def endpoint_of(stream: MessageStreamReader) -> str:
    """The first event's data, which is no message."""
    return await anext(line async for line in stream.lines if line.startswith("data: "))
