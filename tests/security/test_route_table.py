"""The whole route table of the sample application, with the authorization server and MCP: what anybody may see is
written down here, and everything else asks who is there, however it is asked."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import httpx
import pytest
from tornado.routing import PathMatches

from tests.sample.sample_page import RunningSample, running_sample
from tornado_sse_auth import CredentialKind

ID = "0" * 32
# Each route by its pattern, with one path of it. A new one belongs into one of the two tables.
PUBLIC = {
    "/": "/",
    "/dashboard": "/dashboard",
    r"/static/library/chart\.js": "/static/library/chart.js",
    "/static/(.*)": "/static/app.js",
    "/livez": "/livez",
    "/readyz": "/readyz",
    "/health": "/health",
    r"/\.well-known/oauth-protected-resource(/.*)?": "/.well-known/oauth-protected-resource/mcp",
    r"/\.well-known/oauth-authorization-server": "/.well-known/oauth-authorization-server",
    r"/auth/client\.js": "/auth/client.js",
    "/auth/login": "/auth/login",
    "/auth/callback": "/auth/callback",
    "/auth/backchannel-logout": "/auth/backchannel-logout",
    "/oauth/authorize": "/oauth/authorize",
    "/oauth/register": "/oauth/register",
    "/oauth/token": "/oauth/token",
    "/oauth/revoke": "/oauth/revoke",
}
PROTECTED = {
    "/dashboard/events": "/dashboard/events",
    "/events": "/events",
    "/publish": "/publish",
    "/me": "/me",
    "/mcp": "/mcp",
    "/sse": "/sse",
    "/messages": "/messages",
    "/auth/logout": "/auth/logout",
    "/auth/token": "/auth/token",
    "/auth/sessions": "/auth/sessions",
    "/auth/sessions/([0-9a-f]{32})": f"/auth/sessions/{ID}",
    "/auth/sessions/([0-9a-f]{32})/grants/([0-9a-f]{32})": f"/auth/sessions/{ID}/grants/{ID}",
}
# Protected routes that a browser opens as a page; the rest is for programs, or for scripts of pages.
FOR_BROWSERS = {"/dashboard/events", "/events", "/publish", "/me", "/auth/sessions"}
SCOPES = {
    "/publish": "events:write",
    "/mcp": "content:read events:write",
    "/sse": "content:read events:write",
    "/messages": "content:read events:write",
}
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
# What a proxy in front, a framework or a probe might take for another request than it is.
TRICKS: tuple[dict[str, str], ...] = (
    {},
    {"User-Agent": "kube-probe/1.30"},
    {"User-Agent": "ELB-HealthChecker/2.0"},
    {"User-Agent": "GoogleHC/1.0"},
    {"X-Original-URL": "/livez", "X-Rewrite-URL": "/livez"},
    {"X-HTTP-Method-Override": "OPTIONS", "X-Method-Override": "HEAD"},
    {"X-Forwarded-Uri": "/livez", "X-Forwarded-User": "admin", "X_Forwarded_User": "admin", "Forwarded": "for=::1"},
    {"Authorization": "Basic YWRtaW46YWRtaW4="},
)
JSON_RPC = '{"jsonrpc":"2.0","id":1,"method":"initialize","params":{}}'


def spellings(path: str) -> Iterator[str]:
    """The path as somebody writes it who wants to go around the check."""
    yield from (f"{path}?x=/livez", f"{path}%23/livez", f"{path}%3f/livez", f"/{path}", f"{path};x", f"{path}/")
    yield from (f"/%{ord(path[1]):02x}{path[2:]}", f"/livez/..{path}", f"/./{path[1:]}", f"{path}%00", f"{path}%2f..")
    yield from (f"{path}/.", f"{path}.json", f"/static/..{path}", f"/static/%2e%2e{path}", path.upper(), f"{path}\\")


@pytest.fixture
async def sample() -> AsyncIterator[RunningSample]:
    async with running_sample() as running:
        yield running


@asynccontextmanager
async def anonymous(sample: RunningSample) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=sample.url, trust_env=False, timeout=10.0) as client:
        yield client


async def ask(client: httpx.AsyncClient, method: str, path: str, **headers: str) -> httpx.Response:
    """The path goes out as it is written: httpx would tidy it up."""
    url = client.base_url.copy_with(raw_path=path.encode("latin-1"))
    content = JSON_RPC if method in ("POST", "PUT", "PATCH") else None
    more = {"Content-Type": "application/json"} if content else {}
    return await client.request(method, url, headers={**headers, **more}, content=content)


async def test_every_route_is_listed(sample: RunningSample) -> None:
    """SEC-19: public routes are an explicit list; a route that is in neither table makes this fail until it is."""
    patterns = {}
    for rule in sample.application.wildcard_router.rules:
        assert isinstance(rule.matcher, PathMatches)
        patterns[rule.matcher.regex.pattern.removesuffix("$")] = rule.matcher.regex
    assert set(patterns) == PUBLIC.keys() | PROTECTED.keys()
    assert not PUBLIC.keys() & PROTECTED.keys()
    for pattern, path in {**PUBLIC, **PROTECTED}.items():
        assert re.fullmatch(patterns[pattern], path)
    (everything,) = sample.application.default_router.rules  # nothing is routed elsewhere, by a host name for instance
    assert everything.target is sample.application.wildcard_router


async def test_protected_routes_ask_who_is_there(sample: RunningSample) -> None:
    """SEC-13; mod_auth_openidc GHSA-59jp: 401 by every method, a challenge with the metadata and the scopes of the
    resource and without `error`, and a body that is the refusal alone; a browser that wants a page is sent to sign in,
    where a page is what the route is for."""
    async with anonymous(sample) as client:
        for path in PROTECTED.values():
            for method in METHODS:
                answer = await ask(client, method, path)
                assert answer.status_code == 401, (method, path)
                challenge = answer.headers["WWW-Authenticate"]
                assert f'resource_metadata="{sample.url}/.well-known/oauth-protected-resource' in challenge
                assert "error=" not in challenge
                assert re.findall(r'scope="([^"]*)"', challenge) == ([SCOPES[path]] if path in SCOPES else [])
                assert answer.headers["Cache-Control"] == "no-store"
                if method == "HEAD":
                    assert not answer.content
                    continue
                body = answer.json()
                if path in ("/mcp", "/sse", "/messages") and method == "POST":  # in the words of the protocol
                    body = body["error"]["data"]
                assert body["error"] == "authorization_required"
                assert set(body) == {"error", "error_description", "authorization_url", "request_id"}
            page = await ask(
                client, "GET", path, Accept="text/html,application/xhtml+xml", **{"Sec-Fetch-Mode": "navigate"}
            )
            if path in FOR_BROWSERS:
                assert (page.status_code, page.content) == (302, b"")
                assert page.headers["Location"] == f"{sample.url}/auth/login?return_to={path}"
            else:
                assert page.status_code == 401


async def test_no_trick_goes_around_the_check(sample: RunningSample) -> None:
    """SEC-14, SEC-19; GHSA-5hvv, -7rh7, -pxq7, CVE-2024-28179: whoever asks in whatever way gets 401, 403, 404 or 405,
    from no spelling of a path more than from the path itself; nor does a good bearer help where none belongs."""
    _, bearer = await sample.auth.sessions.create(user_id="u", kind=CredentialKind.BEARER)
    token = bearer.reveal()
    misplaced = ({"X-Access-Token": token}, {"Proxy-Authorization": f"Bearer {token}"}, {"Cookie": f"token={token}"})
    host = sample.url.removeprefix("http://")
    async with anonymous(sample) as client:
        for path in PROTECTED.values():
            for method in METHODS:
                for headers in TRICKS:
                    answer = await ask(client, method, path, **headers)
                    assert answer.status_code == 401, (method, path, headers)
            for headers in misplaced:
                assert (await ask(client, "GET", path, **headers)).status_code == 401, (path, list(headers))
            for method in ("GET", "POST"):
                given = await ask(client, method, f"{path}?access_token={token}&token={token}")
                assert given.status_code == 401, (method, path)
            form = await client.post(path, data={"access_token": token})
            assert form.status_code == 401, path
            for spelling in spellings(path):
                for method in ("GET", "POST", "HEAD", "OPTIONS"):
                    answer = await ask(client, method, spelling)
                    assert answer.status_code in (401, 403, 404, 405), (method, spelling)
            for line in (f"GET http://evil.example{path}", f"get {path}", f"GET /livez/..{path}"):
                answered = await raw(sample, f"{line} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")
                assert b" 200 " not in answered.partition(b"\r\n")[0], line


async def test_public_routes_do_only_what_they_are_for(sample: RunningSample) -> None:
    """SEC-19: by every method and by the tricks: what is not done there is 405, and no trick makes it more."""
    allowed = {
        "/auth/backchannel-logout": {"POST"},
        "/oauth/register": {"POST", "OPTIONS"},
        "/oauth/token": {"POST", "OPTIONS"},
        "/oauth/revoke": {"POST", "OPTIONS"},
        "/oauth/authorize": {"GET", "POST"},
        "/static/(.*)": {"GET", "HEAD"},
        r"/\.well-known/oauth-protected-resource(/.*)?": {"GET", "OPTIONS"},
        r"/\.well-known/oauth-authorization-server": {"GET", "OPTIONS"},
    }
    async with anonymous(sample) as client:
        for pattern, path in PUBLIC.items():
            for method in METHODS:
                answer = await ask(client, method, path, **{"X-HTTP-Method-Override": "GET"})
                done = method in allowed.get(pattern, {"GET"})
                assert (answer.status_code != 405) is done, (method, path)
                if method == "OPTIONS" and done:
                    assert (answer.status_code, answer.content) == (204, b"")
                if pattern.startswith(("/oauth/", "/auth/b", "/auth/ca")):
                    assert answer.status_code in (204, 400, 401, 403, 405), (method, path)
        for outside in (
            "/static/..%2fpages.py",
            "/static/%2e%2e/pages.py",
            "/static/../pages.py",
            "/static//etc/passwd",
        ):
            assert (await ask(client, "GET", outside)).status_code in (403, 404), outside
        for unknown in ("/oauth-protected-resource", "/.well-known/oauth-protected-resource/me", "/auth", "/oauth/"):
            assert (await ask(client, "GET", unknown)).status_code == 404, unknown


async def raw(sample: RunningSample, request: str) -> bytes:
    """What the server answers to these bytes before it hangs up."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(sample.url.rpartition(":")[2]))
    try:
        writer.write(request.encode())
        async with asyncio.timeout(10):
            return await reader.read()
    finally:
        writer.close()
