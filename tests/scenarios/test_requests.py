"""What a request gets: the rows of the error table, and nothing else."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import httpx
import pytest

from tests.scenarios.server import Running, serve
from tornado_sse_auth import CredentialKind, MemorySessionStore, Session
from tornado_sse_auth.errors import StoreUnavailableError


@pytest.fixture
async def app() -> AsyncIterator[Running]:
    async with serve() as running:
        yield running


async def bearer_of(app: Running, **more: Any) -> str:
    """A bearer of a new session."""
    _, secret = await app.auth.sessions.create(user_id=more.pop("user_id", "u1"), kind=CredentialKind.BEARER, **more)
    return secret.reveal()


async def cookie_of(app: Running, **more: Any) -> dict[str, str]:
    """A cookie of a new session."""
    _, secret = await app.auth.sessions.create(user_id=more.pop("user_id", "u1"), **more)
    return {app.cookie: secret.reveal()}


def check_error(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The common shape of every error."""
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert body["error"] == code
    assert body["request_id"] == answer.headers["X-Request-ID"]
    assert body["error_description"]
    assert answer.headers["Cache-Control"] == "no-store"
    assert "Etag" not in answer.headers
    assert set(body) <= {"error", "error_description", "authorization_url", "request_id"}
    return dict(body)


async def test_a_credential_opens_its_users_session(app: Running) -> None:
    """Cookie and bearer, cached and not; the answer names its user and is not to be kept (SEC-54)."""
    async with app.client() as client:
        for headers in (
            {"Authorization": f"Bearer {await bearer_of(app, user_id='bea')}"},
            {"Authorization": f"bearer {await bearer_of(app, user_id='bea')}"},
            {"Cookie": "; ".join(f"{k}={v}" for k, v in (await cookie_of(app, user_id="bea")).items()) + "; x=y"},
        ):
            for _ in range(2):
                answer = await client.get("/me", headers=headers)
                assert (answer.status_code, answer.json()["user_id"]) == (200, "bea")
                assert answer.headers["Cache-Control"] == "no-store"
                assert "Etag" not in answer.headers
    assert app.metrics.counters["session.validate.hit"] == 3
    assert app.metrics.counters["session.validate.miss"] == 3


async def test_without_a_credential(app: Running) -> None:
    """SEC-13: a challenge with resource metadata and scope, without an error code."""
    async with app.client() as client:
        answer = await client.get("/prices")
        check_error(answer, 401, "authorization_required")
        challenge = answer.headers["WWW-Authenticate"]
        assert challenge.startswith("Bearer ")
        assert f'resource_metadata="{app.url}/.well-known/oauth-protected-resource"' in challenge
        assert 'scope="prices:read"' in challenge
        assert "error=" not in challenge
        assert (await client.get("/.well-known/oauth-protected-resource")).json()["resource"] == app.url


@pytest.mark.parametrize(
    ("header", "status", "code"),
    [
        ("Bearer", 400, "invalid_request"),
        ("Bearer a b", 400, "invalid_request"),
        ("Bearer a,Bearer b", 400, "invalid_request"),
        ("Basic eDp5,Bearer b", 400, "invalid_request"),
        ("Bearer é", 400, "invalid_request"),
        ("Bearer " + "a" * 9000, 400, "invalid_request"),
        ("Bearer {'$gt': ''}", 400, "invalid_request"),
        ("Bearer abc", 401, "invalid_token"),
        ("Bearer " + "A" * 43, 401, "invalid_token"),
        ("Basic eDp5", 401, "authorization_required"),
    ],
)
async def test_bad_bearers(app: Running, header: str, status: int, code: str) -> None:
    """SEC-14, SEC-57: malformed is 400, unknown is 401; what cannot be ours never reaches the store."""
    async with app.client() as client:
        answer = await client.get("/me", headers={"Authorization": header.encode("latin-1")})
        check_error(answer, status, code)
        if code == "invalid_token":
            assert 'error="invalid_token"' in answer.headers["WWW-Authenticate"]


async def test_two_headers_and_no_falling_back(app: Running) -> None:
    """SEC-14: repeated headers are malformed; a bad bearer is not made good by a good cookie; queries are ignored."""
    cookie, bearer = await cookie_of(app), await bearer_of(app)
    async with app.client() as client:
        twice = await client.get("/me", headers=[("Authorization", f"Bearer {bearer}"), ("Authorization", "Bearer x")])
        check_error(twice, 400, "invalid_request")
        cookies = "; ".join(f"{k}={v}" for k, v in cookie.items())
        answer = await client.get("/me", headers={"Authorization": "Bearer " + "A" * 43, "Cookie": cookies})
        check_error(answer, 401, "invalid_token")
        answer = await client.get("/me", params={"access_token": bearer})
        check_error(answer, 401, "authorization_required")
        # SEC-15: a cookie's value is no bearer, a session id or a stored hash is no credential at all.
        for wrong in (*cookie.values(), (await client.get("/me", headers={"Cookie": cookies})).json()["session_id"]):
            check_error(await client.get("/me", headers={"Authorization": f"Bearer {wrong}"}), 401, "invalid_token")
        check_error(await client.get("/me", headers={"Cookie": f"{app.cookie}={bearer}"}), 401, "invalid_token")
        two = f"{cookies}; {app.cookie}={'B' * 43}"
        check_error(await client.get("/me", headers={"Cookie": two}), 400, "invalid_request")


async def test_foreign_host_and_origin(app: Running) -> None:
    """SEC-20: also on loopback, also with a wrong port; before anything is authenticated."""
    authorization = {"Authorization": f"Bearer {await bearer_of(app, scopes={'prices:read'})}"}
    port = app.url.rpartition(":")[2]
    async with app.client() as client:
        for host in ("evil.example", "127.0.0.1:1", f"a.127.0.0.1:{port}", f"localhost:{port}", ""):
            answer = await client.get("/me", headers={**authorization, "Host": host})
            if host:
                check_error(answer, 421, "invalid_host")
            else:
                assert answer.status_code in (400, 421)
        for origin in (
            "https://evil.example",
            "http://127.0.0.1:1",
            f"{app.url}.evil",
            "null",
            f"https://127.0.0.1:{port}",
        ):
            for path in ("/me", "/prices"):
                answer = await client.get(path, headers={**authorization, "Origin": origin})
                check_error(answer, 403, "invalid_origin")
        assert (await client.get("/me", headers={**authorization, "Origin": app.url})).status_code == 200
        cross = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors"}
        check_error(await client.get("/prices", headers={**authorization, **cross}), 403, "invalid_origin")
        page = {"Accept": "text/html", "Host": f"localhost:{port}"}
        moved = await client.get("/me?a=b", headers=page)
        assert (moved.status_code, moved.headers["Location"]) == (302, f"{app.url}/me?a=b")


async def test_a_change_of_state_with_a_cookie(app: Running) -> None:
    """SEC-25: the browser must say that our own page asks."""
    cookies = "; ".join(f"{k}={v}" for k, v in (await cookie_of(app)).items())
    async with app.client() as client:
        for headers, status in (
            ({}, 403),
            ({"Sec-Fetch-Site": "cross-site"}, 403),
            ({"Sec-Fetch-Site": "same-site"}, 403),
            ({"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "no-cors"}, 403),
            ({"Origin": "https://evil.example", "Sec-Fetch-Site": "same-origin"}, 403),
            ({"Origin": app.url}, 200),
            ({"Sec-Fetch-Site": "same-origin"}, 200),
        ):
            answer = await client.post("/me", headers={"Cookie": cookies, **headers})
            assert answer.status_code == status, (headers, answer.text)
        bearer = await client.post("/me", headers={"Authorization": f"Bearer {await bearer_of(app)}"})
        assert bearer.status_code == 200


async def test_what_a_session_lacks(app: Running) -> None:
    """SEC-17: three kinds of 403; all scopes in one challenge; a rule that cannot be judged never passes."""
    bearer = await bearer_of(app, scopes={"a:read"}, subscription="free")
    async with app.client(headers={"Authorization": f"Bearer {bearer}"}) as client:
        answer = await client.get("/demand/scope")
        check_error(answer, 403, "insufficient_scope")
        assert 'scope="a:read b:read"' in answer.headers["WWW-Authenticate"]
        assert 'error="insufficient_scope"' in answer.headers["WWW-Authenticate"]
        check_error(await client.get("/demand/permission"), 403, "insufficient_permission")
        check_error(await client.get("/demand/subscription"), 403, "insufficient_subscription")
        check_error(await client.get("/demand/typo"), 500, "server_error")
        check_error(await client.get("/prices"), 403, "insufficient_scope")
    bearer = await bearer_of(app, permissions={"trade"}, subscription="pro", scopes={"a:read", "b:read"})
    async with app.client(headers={"Authorization": f"Bearer {bearer}"}) as client:
        for what in ("scope", "permission", "subscription"):
            assert (await client.get(f"/demand/{what}")).json() == {"passed": what}


async def test_our_own_fault_tells_nothing(app: Running, caplog: pytest.LogCaptureFixture) -> None:
    """500 with a request id and no detail; the log has the detail, and neither has the credential (SEC-58)."""
    bearer = await bearer_of(app)
    with caplog.at_level(logging.DEBUG):
        async with app.client(headers={"Authorization": f"Bearer {bearer}"}) as client:
            answer = await client.get("/broken")
    check_error(answer, 500, "server_error")
    assert "canary" not in answer.text
    assert "canary-detail-of-our-own" in caplog.text
    assert bearer not in caplog.text


async def test_paths_and_methods(app: Running) -> None:
    """SEC-19: no spelling of a path goes around the check; what is not there is 404, what is not done is 405."""
    async with app.client() as client:
        for path in ("//me", "/%6de", "/me;x", "/me/", "/me%23/livez", "/me?x=/livez", "/nothing"):
            answer = await client.get(path)
            assert answer.status_code in (401, 404), path
            check_error(answer, answer.status_code, answer.json()["error"])
        for method in ("PUT", "PATCH", "HEAD", "OPTIONS"):
            assert (await client.request(method, "/me")).status_code in (401, 405)
        bearer = await bearer_of(app)
        answer = await client.delete("/me", headers={"Authorization": f"Bearer {bearer}"})
        check_error(answer, 405, "method_not_allowed")


async def test_forwarded_headers_of_strangers_count_for_nothing(app: Running) -> None:
    """SEC-18: neither the request id nor the address is taken over from an unlisted peer."""
    forged = {
        "X-Request-ID": "forged",
        "X-Forwarded-For": "10.9.8.7",
        "X-Forwarded-Host": "evil",
        "X-Forwarded-User": "a",
    }
    async with app.client() as client:
        answer = await client.get("/me", headers=forged)
        check_error(answer, 401, "authorization_required")
        assert answer.headers["X-Request-ID"] != "forged"
    async with serve(trusted_proxies=["127.0.0.0/8"]) as behind, behind.client() as client:
        answer = await client.get("/me", headers=forged)
        assert answer.headers["X-Request-ID"] == "forged"
        both = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
        both.setblocking(False)
        behind.server.add_socket(both)  # sees the proxy as ::ffff:127.0.0.1
        there = f"http://127.0.0.1:{both.getsockname()[1]}/me"
        host = {"Host": behind.url.removeprefix("http://")}
        answer = await client.get(there, headers={**forged, **host})
        assert answer.headers["X-Request-ID"] == "forged"


async def test_bad_credentials_are_counted_by_peer(app: Running) -> None:
    """SEC-61: 429 for the peer's bad ones after 100 a minute; a good one is never locked out."""
    bearer = await bearer_of(app)
    async with app.client() as client:
        statuses = []
        for _ in range(102):
            answer = await client.get("/me", headers={"Authorization": "Bearer " + "A" * 43})
            statuses.append(answer.status_code)
        assert statuses == [401] * 100 + [429] * 2
        check_error(answer, 429, "rate_limited")
        assert 1 <= int(answer.headers["Retry-After"]) <= 60
        assert (await client.get("/me", headers={"Authorization": f"Bearer {bearer}"})).status_code == 200


class AwayStore(MemorySessionStore):
    """A store that can be away."""

    away = False

    async def find_by_credential(self, digest: bytes) -> Session | None:
        if self.away:
            raise StoreUnavailableError(reason="away, says the test")
        return await super().find_by_credential(digest)


async def test_the_store_is_away() -> None:
    """REL-06: 503 with Retry-After and never 401; who is cached goes on."""
    store = AwayStore()
    async with serve(store) as app, app.client() as client:
        cached, other = await bearer_of(app), await bearer_of(app)
        assert (await client.get("/me", headers={"Authorization": f"Bearer {cached}"})).status_code == 200
        store.away = True
        assert (await client.get("/me", headers={"Authorization": f"Bearer {cached}"})).status_code == 200
        answer = await client.get("/me", headers={"Authorization": f"Bearer {other}"})
        check_error(answer, 503, "store_unavailable")
        assert int(answer.headers["Retry-After"]) >= 1
        store.away = False
        assert (await client.get("/me", headers={"Authorization": f"Bearer {other}"})).status_code == 200


def raw_request(app: Running, request: bytes, *, end: bool = True) -> bytes:
    """One request as bytes; all that comes back until the server closes or 5 s pass. `end`: the server is told that
    nothing comes after it, and may then hang up before its answer is read."""
    port = int(app.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        received = b""
        with suppress(OSError):  # the server may hang up on what it does not want to read
            connection.sendall(request)
            if end:
                connection.shutdown(socket.SHUT_WR)
            while chunk := connection.recv(65536):
                received += chunk
        return received


async def test_limits_of_the_server(app: Running) -> None:
    """SEC-60, SEC-14: big headers and bodies are refused by the server's limits, others are served."""
    host = app.url.removeprefix("http://").encode()
    head = b"GET /me HTTP/1.1\r\nHost: " + host + b"\r\n"
    big = await asyncio.to_thread(raw_request, app, head + b"Authorization: Bearer " + b"a" * 1_000_000 + b"\r\n\r\n")
    assert big.split(b"\r\n")[0] in (b"", b"HTTP/1.1 400 Bad Request", b"HTTP/1.1 431 Request Header Fields Too Large")
    body = b"POST /me HTTP/1.1\r\nHost: " + host + b"\r\nContent-Length: 104857600\r\n\r\n"
    refused = await asyncio.to_thread(raw_request, app, body)
    assert not refused.startswith(b"HTTP/1.1 200")
    cookie = b"Connection: close\r\nCookie: " + b"a=b; " * 12_000 + b"\r\n\r\n"
    answer = await asyncio.to_thread(raw_request, app, head + cookie, end=False)
    assert answer.startswith(b"HTTP/1.1 401")
    async with app.client() as client:
        assert (await client.get("/livez")).status_code == 200


@pytest.mark.parametrize("host", ["[", "[::1", "a]b", "[zz]:1"])
async def test_a_host_that_is_none(app: Running, host: str) -> None:
    """SEC-20, SEC-53: also where a page would be redirected."""
    async with app.client() as client:
        answer = await client.get("/me", headers={"Host": host, "Accept": "text/html"})
        check_error(answer, 421, "invalid_host")


async def test_what_is_set_late_counts(app: Running) -> None:
    """SEC-17: requirements given in `initialize`. An application's own errors keep their status, and 429 and 503 say
    when to come back."""
    without = {"Authorization": f"Bearer {await bearer_of(app)}"}
    within = {"Authorization": f"Bearer {await bearer_of(app, scopes={'late:read'})}"}
    async with app.client() as client:
        check_error(await client.get("/late?status=409", headers=without), 403, "insufficient_scope")
        for status, code, pause in (
            (409, "conflict", None),
            (422, "unprocessable_entity", None),
            (429, "too_many_requests", "60"),
            (503, "service_unavailable", "2"),
        ):
            for how in ("raise", "send"):
                answer = await client.get("/late", params={"status": status, "how": how}, headers=within)
                check_error(answer, status, code)
                assert answer.headers.get("Retry-After") == pause


async def test_the_access_log_shows_no_query(app: Running, caplog: pytest.LogCaptureFixture) -> None:
    """SEC-14, SEC-58: what careless clients put there is not written down."""
    caplog.set_level(logging.INFO, logger="tornado.access")
    async with app.client() as client:
        assert (await client.get("/me?access_token=canary-bearer")).status_code == 401
    assert "/me" in caplog.text
    assert "canary-bearer" not in caplog.text


async def test_pages_of_sibling_hosts(app: Running) -> None:
    """SEC-20: another port or subdomain is same-site, but not the same origin; a link from there may be followed."""
    async with app.client(cookies=await cookie_of(app)) as client:
        for site in ("same-site", "cross-site"):
            fetched = await client.get("/me", headers={"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "no-cors"})
            check_error(fetched, 403, "invalid_origin")
            followed = await client.get("/me", headers={"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "navigate"})
            assert followed.status_code == 200
