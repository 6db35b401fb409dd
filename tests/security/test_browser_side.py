"""What a browser is told with each answer of the sample application, and what pages of others get it to do: nothing."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx
import pytest

from tests.authorization_server.kit import REDIRECT
from tests.sample.sample_page import RunningSample, running_sample
from tests.security.test_route_table import PROTECTED, PUBLIC, anonymous, ask

FOREIGN, PARTNER = "https://evil.example", "https://app.partner.example"
STREAMS = {"/events", "/dashboard/events", "/mcp", "/sse"}  # a GET of them does not end by itself
# The same for everybody: these alone may be kept.
FILES = {"/static/app.js", "/static/library/chart.js", "/auth/client.js"}
# For programs in pages of any origin: no cookie counts there.
OPEN_TO_PAGES = {
    "/.well-known/oauth-protected-resource/mcp",
    "/.well-known/oauth-authorization-server",
    "/oauth/register",
    "/oauth/token",
    "/oauth/revoke",
}
# How browsers mark a request that a page of somebody else has caused, or that no page of ours can have.
FOREIGN_REQUESTS: tuple[dict[str, str], ...] = (
    {"Origin": FOREIGN},
    {"Origin": "null"},
    {"Origin": FOREIGN, "Sec-Fetch-Site": "same-origin"},
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors"},
    {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors"},
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
)
NOT_OUR_PAGE: tuple[dict[str, str], ...] = (
    *FOREIGN_REQUESTS,
    {},
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"},
    {"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate"},
    {"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "no-cors"},
)
PREFLIGHT = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}


@pytest.fixture
async def sample() -> AsyncIterator[RunningSample]:
    async with running_sample() as running:
        yield running


async def cookie_of(sample: RunningSample, user_id: str = "u") -> dict[str, str]:
    """The Cookie header of a new session."""
    scopes = {"content:read", "events:write"}
    _, secret = await sample.auth.sessions.create(user_id=user_id, scopes=scopes, claims={"email": "u@users.example"})
    return {"Cookie": f"{sample.auth.cookie_name}={secret.reveal()}"}


async def authorization_request(client: httpx.AsyncClient) -> str:
    """The path with which a client sends its user here."""
    document = {"client_name": "Editor", "redirect_uris": [REDIRECT], "token_endpoint_auth_method": "none"}
    registered = await client.post("/oauth/register", json=document)
    query = {
        "response_type": "code",
        "client_id": registered.json()["client_id"],
        "redirect_uri": REDIRECT,
        "code_challenge": "A" * 43,
        "code_challenge_method": "S256",
    }
    return f"/oauth/authorize?{httpx.QueryParams(query)}"


def check_any(answer: httpx.Response, path: str) -> None:
    """What holds for every answer."""
    where = (answer.request.method, path, answer.status_code)
    assert answer.headers["X-Content-Type-Options"] == "nosniff", where
    assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"], where
    if path in FILES and answer.status_code == 200:
        assert "Set-Cookie" not in answer.headers, where
        return
    assert answer.headers["Cache-Control"] == "no-store", where
    assert "ETag" not in answer.headers, where


def check_page(answer: httpx.Response, path: str) -> str:
    """What holds for every page; gives its nonce."""
    assert answer.headers["Content-Type"].lower() == "text/html; charset=utf-8"
    policy = dict(rule.strip().partition(" ")[::2] for rule in answer.headers["Content-Security-Policy"].split(";"))
    assert (policy["default-src"], policy["base-uri"], policy["frame-ancestors"]) == ("'none'",) * 3, path
    assert "unsafe" not in str(policy), path
    nonce = policy["style-src"].removeprefix("'nonce-").removesuffix("'")
    assert policy["style-src"] == policy.get("script-src", policy["style-src"]) == f"'nonce-{nonce}'", path
    assert len(nonce) >= 22, path
    tags = re.findall(r"<(?:script|style|link rel=\"stylesheet\")[^>]*>", answer.text)
    assert tags, path
    assert all(f'nonce="{nonce}"' in tag for tag in tags), (path, tags)
    assert "script-src" in policy or "<script" not in answer.text, path
    assert not re.search(r"<[^>]*\son\w+\s*=", answer.text), path
    assert not re.search(r"<[^>]*\sstyle\s*=", answer.text), path
    assert not re.findall(r"(?:src|href)=\"(?:https?:)?//", answer.text), path
    return nonce


async def test_every_answer_guards_itself(sample: RunningSample) -> None:
    """SEC-06, SEC-54: every route, for somebody, nobody and a browser, and what is refused before a route is known:
    not sniffed, not framed, not kept; what may be kept is the same for everybody and sets no cookie."""
    cookie, page = await cookie_of(sample), {"Accept": "text/html", "Sec-Fetch-Mode": "navigate"}
    foreign: dict[str, str] = {"Host": "evil.example"}
    async with anonymous(sample) as client:
        paths = [*PUBLIC.values(), *PROTECTED.values(), "/nothing"]
        for path in paths:
            for headers in ({}, cookie, page, foreign, {**cookie, "Origin": FOREIGN}):
                if path in STREAMS and headers is cookie:
                    async with client.stream("GET", path, headers=headers) as stream:
                        check_any(stream, path)
                    continue
                check_any(await ask(client, "GET", path, **headers), path)
            for method in ("POST", "DELETE", "OPTIONS"):
                check_any(await ask(client, method, path), path)
        for path in FILES:
            for headers in (cookie, page):
                assert (await client.get(path, headers=headers)).content == (await client.get(path)).content


async def test_every_page_has_a_policy_with_nonces(sample: RunningSample) -> None:
    """SEC-06, SEC-31: nothing on a page runs or is styled without the nonce of that very answer, nothing comes from
    elsewhere, nobody frames it, and the pages of a sign-in tell nobody where the browser came from."""
    cookie = await cookie_of(sample)
    async with anonymous(sample) as client:
        consent = await authorization_request(client)
        pages = {
            "/": (200, "same-origin"),
            "/dashboard": (200, "same-origin"),
            "/auth/login?return_to=/a&return_to=/b": (400, "no-referrer"),
            "/auth/callback": (400, "no-referrer"),
            "/auth/callback?state=x&code=y": (400, "no-referrer"),
            "/oauth/authorize": (400, "same-origin"),  # with "no-referrer" the form of its page would have no Origin
            consent: (200, "same-origin"),
        }
        for path, (status, referrer) in pages.items():
            answers = [await client.get(path, headers={**cookie, "Accept": "text/html"}) for _ in range(3)]
            assert {answer.status_code for answer in answers} == {status}, path
            assert {answer.headers["Referrer-Policy"] for answer in answers} == {referrer}, path
            assert len({check_page(answer, path) for answer in answers}) == 3, path
        for path in ("/auth/login", "/auth/callback"):
            assert (await client.get(path)).headers["Referrer-Policy"] == "no-referrer"


async def test_pages_of_others_change_nothing(sample: RunningSample) -> None:
    """SEC-20, SEC-25, SEC-34: with the cookie of somebody who is signed in, every route and every method that changes
    something, the form of the consent page and every stream: 403 for what no page of ours has sent."""
    cookie = await cookie_of(sample)
    before = await sample.auth.sessions.sessions_of("u")
    async with anonymous(sample) as client:

        async def refused(method: str, path: str, headers: Mapping[str, str]) -> None:
            answer = await ask(client, method, path, **cookie, **headers)
            assert answer.status_code == 403, (method, path, headers)
            assert "invalid_origin" in answer.text or path == "/oauth/authorize"
            assert "Access-Control-Allow-Origin" not in answer.headers
            assert "Set-Cookie" not in answer.headers

        for path in PROTECTED.values():
            for method in ("POST", "PUT", "PATCH", "DELETE"):
                for headers in NOT_OUR_PAGE:
                    await refused(method, path, headers)
            for headers in FOREIGN_REQUESTS:
                await refused("GET", path, headers)
        for headers in NOT_OUR_PAGE:
            await refused("POST", "/oauth/authorize", headers)
        assert await sample.auth.sessions.sessions_of("u") == before
        assert sample.auth.registry.count(before[0].id) == 0
        for path in ("/publish", "/auth/token", "/mcp", "/auth/sessions/" + "0" * 32, "/auth/logout"):
            for own in ({"Origin": sample.url}, {"Sec-Fetch-Site": "same-origin"}):
                method = "DELETE" if "sessions" in path else "POST"
                answer = await ask(client, method, path, **cookie, **own)
                assert answer.status_code != 403, (path, own)


async def test_other_hosts_are_none_of_ours(sample: RunningSample) -> None:
    """SEC-06, SEC-20; CVE-2025-66416: a name that leads here without being ours (rebinding), a wrong port, what merely
    begins or ends like ours, also on loopback: 421 on every route that asks who is there or begins something, with a
    good cookie and whatever a proxy is said to have forwarded; who only looks is told the same as ever."""
    cookie, ours = await cookie_of(sample), sample.url.removeprefix("http://")
    port = ours.rpartition(":")[2]
    hosts = ("evil.example", f"evil.example:{port}", "127.0.0.1", "127.0.0.1:1", f"a.{ours}", f"{ours}.evil.example")
    forwarded = {"X-Forwarded-Host": ours, "Forwarded": f"host={ours}", "X-Host": ours}
    beginnings = [path for path in PUBLIC.values() if path.startswith(("/auth/l", "/auth/ca", "/auth/b", "/oauth/"))]
    assert len(beginnings) == 7
    async with anonymous(sample) as client:
        for path in (*PROTECTED.values(), *beginnings):
            posted = path.startswith("/oauth/") or path in ("/auth/backchannel-logout", "/mcp", "/messages")
            for host in (*hosts, f"localhost:{port}", f"[::1]:{port}"):
                headers = {**cookie, **forwarded, "Origin": sample.url}
                answer = await ask(client, "POST" if posted else "GET", path, **{**headers, "Host": host})
                assert answer.status_code == 421, (path, host)
                assert "Set-Cookie" not in answer.headers
        for path in OPEN_TO_PAGES - {"/oauth/register", "/oauth/token", "/oauth/revoke"}:
            document = (await client.get(path)).json()
            forged = {
                "X-Forwarded-Host": "evil.example",
                "X-Forwarded-Proto": "https",
                "Forwarded": "host=evil.example",
            }
            assert (await client.get(path, headers=forged)).json() == document
            assert "evil" not in str(document)


async def test_other_origins_read_nothing() -> None:
    """SEC-20: no route answers a page of another origin with a CORS header or a yes to its preflight, but for those of
    programs, which give no credentials away; with `allowed_origins` that one may, and never press the consent page's
    button."""
    for allowed in ((), (PARTNER,)):
        options: dict[str, Any] = {"allowed_origins": allowed} if allowed else {}
        async with running_sample(**options) as sample, anonymous(sample) as client:
            cookie = await cookie_of(sample)
            for path in (*PUBLIC.values(), *PROTECTED.values(), "/nothing"):
                for origin in (FOREIGN, PARTNER, f"{PARTNER}.evil.example", "null"):
                    for method, headers in (("GET", {}), ("GET", cookie), ("OPTIONS", PREFLIGHT)):
                        if path in STREAMS and headers is cookie and origin in allowed:
                            continue
                        answer = await ask(client, method, path, **headers, Origin=origin)
                        given = answer.headers.get("Access-Control-Allow-Origin")
                        expected = "*" if path in OPEN_TO_PAGES else origin if origin in allowed else None
                        assert given == expected, (method, path, origin)
                        credentials = answer.headers.get("Access-Control-Allow-Credentials")
                        assert credentials == (None if given in (None, "*") else "true"), (method, path, origin)
                        if method == "OPTIONS" and given is None:
                            assert answer.status_code in (403, 404, 405), (path, origin)
            pressed = await ask(client, "POST", "/oauth/authorize", **cookie, Origin=PARTNER)
            assert pressed.status_code == 403
