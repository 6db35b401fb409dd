"""Everything by which a request comes in, but for its path: hosts, origins, forwarded headers, credentials, bodies."""

from __future__ import annotations

import re

import pytest
from tornado.web import RequestHandler

from tests.security.kit import World, refused, world
from tornado_sse_auth import SSEAuthMixin

GOOD_FORM = "A" * 43


async def test_a_malformed_credential_asks_nobody(running: World) -> None:
    """SEC-14, SEC-57; CVE-2025-61920: 400 before the store is asked, also for a token in the query or a form, which is
    none at all; and no log line repeats it."""
    bearer = await running.bearer()
    asked = running.store.questions
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    async with running.client() as client:
        with running.nothing_happens(bearer, "canary"):
            for value in (
                "Bearer",
                "Bearer canary{",
                'Bearer {"$gt":""}',
                "Bearer canary\u00e9",
                "Bearer a b",
            ):
                answer = await client.get("/me", headers={"Authorization": value.encode("latin-1")})
                refused(answer, 400, "invalid_request")
            for pair in ((f"Bearer {bearer}", "Bearer canary"), ("Basic Y2FuYXJ5", f"Bearer {bearer}")):
                for values in (pair, pair[::-1]):
                    twice = [("Authorization", value) for value in values]
                    refused(await client.get("/me", headers=twice), 400, "invalid_request")
            cookie = {"Cookie": f"{running.app.cookie}=canary[$ne]"}
            refused(await client.get("/me", headers=cookie), 401, "invalid_token")
            for method, more in (
                ("GET", {"params": {"access_token": bearer}}),
                ("POST", {"content": f"access_token={bearer}", "headers": form}),
            ):
                refused(await client.request(method, "/me", **more), 401, "authorization_required")
    assert running.store.questions == asked


async def test_a_header_that_cannot_be_read_is_not_repeated_in_the_log(running: World) -> None:
    """SEC-14, SEC-58: Tornado quotes it, with the good cookie that stands beside the broken one."""
    bearer = await running.bearer()
    host = running.app.url.removeprefix("http://").encode()
    with running.nothing_happens(bearer):
        for name in (b"Authorization: Bearer ", b"Cookie: broken=\x01; session="):
            request = b"GET /me HTTP/1.1\r\nHost: " + host + b"\r\n" + name + bearer.encode() + b"\x00\r\n\r\n"
            assert (await running.raw(request)).startswith(b"HTTP/1.1 400 ")
    assert "Malformed HTTP message" in running.log.text


async def test_what_is_no_credential_of_ours(running: World) -> None:
    """SEC-15: the provider's tokens, a code, a session id, a stored hash: each is 401, however genuine elsewhere."""
    async with running.client() as browser, running.client() as client:
        callback = await running.begin(browser, login_hint="alice")
        code, state = re.findall(r"(?:code|state)=([^&]+)", callback)
        await browser.get(callback)
        token = (await browser.get("/upstream")).json()["token"]
        session = await running.app.auth.sessions.find((await browser.get("/me")).json()["session_id"])
        assert session is not None
        assert session.token_set is not None
        assert session.token_set.refresh_token is not None
        tokens = running.scripted.issue("alice")
        digest = session.credentials[0].digest
        wrong = [
            token,
            session.token_set.refresh_token.reveal(),
            tokens["id_token"],
            code,
            state,
            session.id,
            digest.hex(),
            browser.cookies[running.app.cookie],
        ]
        with running.nothing_happens(*wrong):
            for value in wrong:
                answer = await client.get("/me", headers={"Authorization": f"Bearer {value}"})
                refused(answer, 401, "invalid_token")
                assert 'error="invalid_token"' in answer.headers["WWW-Authenticate"]


class Failing(SSEAuthMixin, RequestHandler):
    """A rule of an application that cannot be loaded."""

    async def prepare(self) -> None:
        await super().prepare()
        raise OSError("canary: rules.json is away")

    def get(self) -> None:
        self.write("canary: what only some may see")


async def test_a_rule_that_raises_lets_nobody_in(caplog: pytest.LogCaptureFixture) -> None:
    """SEC-17; GHSA-652x: 500 with nothing but the request id, never 200."""
    async with world(caplog, handlers=[(r"/failing", Failing)]) as running, running.client() as client:
        answer = await client.get("/failing", headers={"Authorization": f"Bearer {await running.bearer()}"})
        refused(answer, 500, "server_error")
        assert "canary" not in answer.text


FORGED = {
    "X-Forwarded-For": "10.9.8.7",
    "X-Forwarded-Host": "evil.example",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Uri": "/livez",
    "X-Forwarded-User": "admin",
    "X_Forwarded_User": "admin",
    "X-Forwarded-Prefix": "//evil.example",
    "X-Original-Url": "/livez",
    "X-Real-Ip": "10.9.8.7",
    "Forwarded": "for=10.9.8.7;host=evil.example;proto=https",
    "X-Http-Method-Override": "DELETE",
}


async def test_forged_headers_of_a_proxy_change_nothing(running: World) -> None:
    """SEC-18, SEC-10; CVE-2025-64484, CVE-2026-40575: same answer, issuer, redirect, cookie flags and limiter as
    without; from a listed proxy the address and the request id count, and nothing else of them."""
    async with running.client() as client:
        plain, forged = await client.get("/me"), await client.get("/me", headers=FORGED)
        assert {**forged.json(), "request_id": ""} == {**plain.json(), "request_id": ""}
        login = await client.get("/auth/login", headers=FORGED)
        assert "evil" not in login.headers["Location"]
        assert f"redirect_uri={running.app.url.replace(':', '%3A').replace('/', '%2F')}" in login.headers["Location"]
        assert "Secure" not in login.headers["Set-Cookie"]
        for number in range(101):
            bad = {**FORGED, "X-Forwarded-For": f"10.0.0.{number}", "Authorization": f"Bearer {GOOD_FORM}"}
            answer = await client.get("/me", headers=bad)
        refused(answer, 429, "rate_limited")
    async with world(running.log, trusted_proxies=["127.0.0.0/8"]) as behind, behind.client() as client:
        for number in range(101):
            bad = {"X-Forwarded-For": f"6.6.6.6, 10.0.0.{number}", "Authorization": f"Bearer {GOOD_FORM}"}
            refused(await client.get("/me", headers=bad), 401, "invalid_token")
        odd = {**FORGED, "X-Request-ID": "a\tb" * 100, "X-Forwarded-For": "nonsense"}
        assert (await client.get("/me", headers=odd)).headers["X-Request-ID"] != odd["X-Request-ID"]


async def test_pages_of_other_origins_only_where_the_operator_says_so(caplog: pytest.LogCaptureFixture) -> None:
    """SEC-20: without `allowed_origins` no answer has a CORS header and a preflight is 403; with it that origin alone
    may read, refusals included, and a preflight carries nobody's data."""
    partner, stranger = "https://app.partner.example", "https://evil.example"
    ask = {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "authorization, last-event-id"}
    async with world(caplog) as running, running.client() as client:
        refused(await client.options("/me", headers={"Origin": partner, **ask}), 403, "invalid_origin")
        for answer in running.answers:
            assert "Access-Control-Allow-Origin" not in answer.headers
    async with world(caplog, allowed_origins=[partner]) as running, running.client() as client:
        bearer = {"Authorization": f"Bearer {await running.bearer()}"}
        for path in ("/me", "/prices", "/auth/sessions"):
            asked = await client.options(path, headers={"Origin": partner, **ask})
            assert (asked.status_code, asked.content) == (204, b"")
            assert asked.headers["Access-Control-Allow-Headers"] == ask["Access-Control-Request-Headers"]
            assert "DELETE" in asked.headers["Access-Control-Allow-Methods"]
        for status, headers in ((200, bearer), (401, {})):
            answer = await client.get("/me", headers={"Origin": partner, **headers})
            assert answer.status_code == status
            assert answer.headers["Access-Control-Allow-Origin"] == partner
            assert "WWW-Authenticate" in answer.headers["Access-Control-Expose-Headers"]
            assert answer.headers["Vary"] == "Origin"
        for origin in (stranger, f"{partner}.evil.example", "null", partner.upper()):
            for method in ("GET", "OPTIONS"):
                answer = await client.request(method, "/me", headers={"Origin": origin, **bearer, **ask})
                refused(answer, 403, "invalid_origin")
                assert "Access-Control-Allow-Origin" not in answer.headers
        odd = {"Origin": partner, **ask, "Access-Control-Request-Headers": "x\t: y"}
        assert "Access-Control-Allow-Headers" not in (await client.options("/me", headers=odd)).headers


async def test_attempts_are_limited_by_peer_and_nobody_else_is(running: World) -> None:
    """SEC-61: bad bearers and states are one count; 429 with Retry-After, and good credentials go on."""
    bearer = {"Authorization": f"Bearer {await running.bearer()}"}
    limiter = running.app.auth.bad_credentials
    async with running.client() as client:
        for _ in range(50):
            refused(await client.get("/me", headers={"Authorization": f"Bearer {GOOD_FORM}"}), 401, "invalid_token")
            unknown = {"state": GOOD_FORM, "code": "c", "iss": running.scripted.issuer}
            refused(await client.get("/auth/callback", params=unknown), 400, "invalid_request")
        refused(await client.get("/auth/callback", params=unknown), 429, "rate_limited")
        refused(await client.get("/me", headers={"Authorization": f"Bearer {GOOD_FORM}"}), 429, "rate_limited")
        assert (await client.get("/me", headers=bearer)).status_code == 200
        assert running.scripted.calls("token") == []
    # Nobody else shares the count: another IPv4 address, another /64; but all of one /64 do.
    limiter.hit("10.0.0.1")
    for number in range(100):
        limiter.hit(f"2001:db8::{number:x}")
    with pytest.raises(Exception, match="rate_limited"):
        limiter.hit("2001:db8::ffff")
    # What a proxy on a socket of both kinds writes for IPv4 addresses is one /64, and nobody's in particular.
    for number in range(200):
        limiter.hit(f"::ffff:10.1.0.{number}")
    for _ in range(99):
        limiter.hit("::ffff:10.1.0.1")
    with pytest.raises(Exception, match="rate_limited"):
        limiter.hit("10.1.0.1")
    limiter.hit("2001:db8:0:1::1")
    for number in range(30_000):
        limiter.hit(f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}")
    assert len(limiter._hits) <= 20_000
