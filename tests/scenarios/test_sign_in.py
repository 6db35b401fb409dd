"""Sign-in in the browser, what it is bound to, and what users do with their sessions afterwards."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from tests.parts.scripted_provider import Answer, ScriptedProvider
from tests.scenarios.server import SCOPES, Running, provider_at, serve


@dataclass(frozen=True)
class World:
    """The application and its provider."""

    app: Running
    scripted: ScriptedProvider

    async def begin(self, browser: httpx.AsyncClient, **parameters: str) -> str:
        """To the provider and back, without the last step: the callback's address."""
        login = await browser.get("/auth/login", params=parameters)
        assert login.status_code == 302, login.text
        async with httpx.AsyncClient(trust_env=False) as elsewhere:
            back = await elsewhere.get(login.headers["Location"])
        assert back.headers["Location"].startswith(f"{self.app.url}/auth/callback?")
        return str(back.headers["Location"])

    async def sign_in(self, browser: httpx.AsyncClient, user: str = "alice", **parameters: str) -> httpx.Response:
        """The whole way; the browser keeps the cookie."""
        answer = await browser.get(await self.begin(browser, login_hint=user, **parameters))
        assert answer.status_code == 302, answer.text
        return answer


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with ScriptedProvider() as scripted:
        scripted.accounts["alice"] = {"name": "Alice", "permissions": ["trade"], "subscription_level": "pro"}
        provider = provider_at(scripted, timeout=3.0)
        async with serve(provider=provider) as app:
            yield World(app, scripted)


async def test_from_401_to_a_session(world: World) -> None:
    """A page is redirected, a program is told where; afterwards both are the user."""
    async with world.app.client() as browser:
        refused = await browser.get("/me")
        assert refused.json()["authorization_url"] == f"{world.app.url}/auth/login"
        page = await browser.get("/me?tab=1", headers={"Accept": "text/html"})
        assert page.headers["Location"] == f"{world.app.url}/auth/login?return_to=/me%3Ftab%3D1"
        location = parse_qs(urlsplit(page.headers["Location"]).query)["return_to"][0]
        done = await world.sign_in(browser, return_to=location)
        assert done.headers["Location"] == "/me?tab=1"
        cookie = done.headers["Set-Cookie"]
        assert cookie.startswith(f"{world.app.cookie}=")
        assert "HttpOnly" in cookie
        assert "SameSite=Lax" in cookie
        assert "Domain" not in cookie
        assert "Path=/" in cookie
        me = (await browser.get("/me")).json()
        assert me["user_id"] == f"{world.scripted.issuer}|alice"
        assert set(me["scopes"]) == set(SCOPES.split())
        assert me["subscription"] == "pro"
        token = (await browser.get("/upstream")).json()["token"]
        assert token in world.scripted._access_tokens


async def test_state_is_single_use_and_bound_to_the_browser(world: World) -> None:
    """SEC-21, SEC-35: unknown, used, or from another browser: 400, no cookie, no call of the token endpoint."""
    async with world.app.client() as browser, world.app.client() as other:
        callback = await world.begin(browser)
        stolen = await other.get(callback)
        assert stolen.status_code == 400
        assert "Set-Cookie" not in stolen.headers
        assert world.scripted.calls("token", grant_type="authorization_code") == []
        assert (await browser.get(callback)).status_code == 400  # the attempt was taken by the thief's try
        callback = await world.begin(browser)
        assert (await browser.get(callback)).status_code == 302
        assert (await browser.get(callback)).status_code == 400
        unknown = await browser.get(
            "/auth/callback", params={"state": "x" * 43, "code": "c", "iss": world.scripted.issuer}
        )
        assert unknown.status_code == 400
        assert len(world.scripted.calls("token", grant_type="authorization_code")) == 1


async def test_parallel_tabs(world: World) -> None:
    """Each tab has a sign-in of its own; both come through, in any order."""
    async with world.app.client() as browser:
        first = await world.begin(browser, return_to="/one", login_hint="alice")
        second = await world.begin(browser, return_to="/two", login_hint="alice")
        assert (await browser.get(second)).headers["Location"] == "/two"
        assert (await browser.get(first)).headers["Location"] == "/one"
        assert (await browser.get("/me")).status_code == 200
    async with world.app.client() as restored:  # a window comes back with all its tabs at once, and no cookie yet
        callbacks = []
        for _ in range(2):
            async with world.app.client() as tab:
                login = await tab.get("/auth/login")
            restored.cookies.update(login.cookies)
            async with httpx.AsyncClient(trust_env=False) as elsewhere:
                callbacks.append((await elsewhere.get(login.headers["Location"])).headers["Location"])
        for callback in callbacks:
            assert (await restored.get(callback)).status_code == 302
        assert list(restored.cookies) == [world.app.cookie]


async def test_abandoned_sign_ins_do_not_pile_up(world: World) -> None:
    """SEC-36, SEC-60: each has a cookie; the headers of a browser stay small."""
    async with world.app.client() as browser:
        for _ in range(30):
            assert (await browser.get("/auth/login")).status_code == 302
            assert sum(len(f"{name}={value}; ") for name, value in browser.cookies.items()) < 4096
        assert len(browser.cookies) <= 10
        assert (await browser.get(await world.begin(browser))).status_code == 302


async def test_what_no_page_of_ours_asked_for(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """SEC-20: a foreign image begins no sign-in, a foreign Host ends none; what failed is in the audit log."""
    caplog.set_level(logging.INFO, logger="tornado_sse_auth.audit")
    async with world.app.client() as browser:
        image = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}
        assert (await browser.get("/auth/login", headers=image)).status_code == 403
        foreign = await browser.get(await world.begin(browser), headers={"Host": "evil.example"})
        assert (foreign.status_code, foreign.headers.get("Set-Cookie")) == (421, None)
        async with world.app.client() as thief:
            assert (await thief.get(await world.begin(browser))).status_code == 400
    events = [json.loads(record.message) for record in caplog.records if record.name == "tornado_sse_auth.audit"]
    assert [event["outcome"] for event in events if event["event"] == "sign-in"] == ["invalid_request"]


@pytest.mark.parametrize("name", ["state", "code", "iss"])
async def test_repeated_parameters(world: World, name: str) -> None:
    """SEC-22: which of two counts is not ours to guess."""
    async with world.app.client() as browser:
        callback = await world.begin(browser)
        value = parse_qs(urlsplit(callback).query)[name][0]
        answer = await browser.get(f"{callback}&{name}={value}")
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")
        assert world.scripted.calls("token", grant_type="authorization_code") == []
        answer = await browser.get("/auth/login?return_to=/a&return_to=/b")
        assert answer.status_code == 400


async def test_wrong_or_missing_iss(world: World) -> None:
    """SEC-22: RFC 9207."""
    async with world.app.client() as browser:
        for replacement in ("https://evil.example", None):
            callback = await world.begin(browser)
            parts = urlsplit(callback)
            query = {name: values[0] for name, values in parse_qs(parts.query).items()}
            query.pop("iss")
            if replacement:
                query["iss"] = replacement
            assert (await browser.get("/auth/callback", params=query)).status_code == 400
        assert world.scripted.calls("token", grant_type="authorization_code") == []


async def test_the_user_says_no(world: World) -> None:
    """403 `access_denied`, without a session."""
    world.scripted.authorize_error = "access_denied"
    async with world.app.client() as browser:
        answer = await browser.get(await world.begin(browser))
        assert (answer.status_code, answer.json()["error"]) == (403, "access_denied")
        assert (await browser.get("/me")).status_code == 401


@pytest.mark.parametrize(
    "return_to",
    ["//evil.example", "/\\evil", "/\t/evil", "https:evil", "javascript:alert(1)", "/%0d%0aX:y", "///e", "/./\\e"],
)
async def test_return_to_is_local(world: World, return_to: str) -> None:
    """SEC-24: a local path or `/`."""
    async with world.app.client() as browser:
        assert (await world.sign_in(browser, return_to=return_to)).headers["Location"] == "/"


async def test_a_new_sign_in_replaces_the_cookie(world: World) -> None:
    """SEC-23: the older value, planted or not, is worth nothing at once."""
    async with world.app.client() as browser:
        await world.sign_in(browser)
        old = browser.cookies[world.app.cookie]
        old_id = (await browser.get("/me")).json()["session_id"]
        await world.sign_in(browser, "bob")
        me = (await browser.get("/me")).json()
        assert me["user_id"].endswith("|bob")
        assert me["session_id"] != old_id
        async with world.app.client(cookies={world.app.cookie: old}) as thief:
            assert (await thief.get("/me")).status_code == 401
        await world.scripted.wait_for_calls("revoke")


async def test_two_accounts_are_two_users(world: World) -> None:
    """SEC-27: an e-mail address grants nothing."""
    world.scripted.accounts["bob"] = world.scripted.accounts["alice"] = {"email": "x@example.org"}
    async with world.app.client() as one, world.app.client() as two:
        await world.sign_in(one, "alice")
        await world.sign_in(two, "bob")
        assert (await one.get("/me")).json()["user_id"] != (await two.get("/me")).json()["user_id"]


async def test_a_bearer_for_scripts(world: World) -> None:
    """Made with the cookie only; ends with the cookie it was made with."""
    async with world.app.client() as browser, world.app.client() as script:
        await world.sign_in(browser)
        origin = {"Origin": world.app.url}
        made = await browser.post("/auth/token", json={"grant": "session", "expires_in": 600}, headers=origin)
        assert made.status_code == 200, made.text
        assert made.json()["token_type"] == "Bearer"
        assert 598 <= made.json()["expires_in"] <= 600
        bearer = {"Authorization": f"Bearer {made.json()['access_token']}"}
        assert (await script.get("/me", headers=bearer)).status_code == 200
        assert (await script.post("/auth/token", json={"grant": "session"}, headers=bearer)).status_code == 401
        for body in (
            b"[]",
            b"{",
            b'{"grant":"x"}',
            b'{"grant":"session","expires_in":-1}',
            b"[" * 10_000,
            b"\xff",
            b'{"grant":"session","expires_in":NaN}',
            b'{"grant":"session","expires_in":true}',
        ):
            bad = await browser.post("/auth/token", content=body, headers=origin)
            assert (bad.status_code, bad.json()["error"]) == (400, "invalid_request"), body
        assert (await browser.get("/auth/token")).status_code == 405
        assert (await browser.post("/auth/logout")).status_code == 403
        out = await browser.post("/auth/logout", headers=origin)
        assert out.status_code == 204
        assert (await script.get("/me", headers=bearer)).status_code == 401
        assert (await browser.get("/me")).status_code == 401


async def test_sessions_are_listed_and_ended_one_by_one(world: World) -> None:
    """One's own only: anybody else's is 404."""
    async with world.app.client() as laptop, world.app.client() as phone, world.app.client() as stranger:
        await world.sign_in(laptop)
        await world.sign_in(phone)
        await world.sign_in(stranger, "mallory")
        listed = (await laptop.get("/auth/sessions")).json()["sessions"]
        assert [entry["current"] for entry in listed] == [True, False]
        assert set(listed[0]) == {"id", "created", "last_seen", "client", "current", "open_streams", "grants"}
        origin = {"Origin": world.app.url}
        other = listed[1]["id"]
        assert (await stranger.delete(f"/auth/sessions/{other}", headers=origin)).status_code == 404
        async with world.app.stream("/prices", cookies=phone.cookies) as stream:
            await stream.next("open")
            assert (await laptop.get("/auth/sessions")).json()["sessions"][1]["open_streams"] == 1
            assert (await laptop.delete(f"/auth/sessions/{other}", headers=origin)).status_code == 204
            assert (await stream.next("end")).json() == {"reason": "revoked"}
            await stream.wait_for_end()
        assert (await phone.get("/me")).status_code == 401
        everywhere = await laptop.post("/auth/logout", json={"everywhere": True}, headers=origin)
        assert everywhere.status_code == 204
        assert (await laptop.get("/me")).status_code == 401
        assert (await stranger.get("/me")).status_code == 200


async def test_fifty_sessions_a_user(world: World) -> None:
    """The oldest ends."""
    sessions = [await world.app.auth.sessions.create(user_id="u") for _ in range(51)]
    left = await world.app.auth.sessions.sessions_of("u")
    assert [session.id for session in left] == [session.id for session, _ in sessions[1:]]


async def test_the_provider_is_away_at_sign_in(world: World) -> None:
    """503 with Retry-After; who is signed in goes on."""
    async with world.app.client() as browser, world.app.client() as other:
        await world.sign_in(browser)
        world.scripted.script("token", Answer(status=500))
        answer = await other.get(await world.begin(other))
        assert (answer.status_code, answer.json()["error"]) == (503, "provider_unavailable")
        assert int(answer.headers["Retry-After"]) >= 1
        assert (await browser.get("/me")).status_code == 200


async def test_sign_ins_are_counted(world: World) -> None:
    """120 begun a minute from one address."""
    async with world.app.client() as browser:
        answers = await asyncio.gather(*(browser.get("/auth/login") for _ in range(122)))
        assert sorted(answer.status_code for answer in answers)[-2:] == [429, 429]


async def test_a_failed_sign_in_is_a_page_for_a_person(world: World) -> None:
    """Under a policy without script; the text is ours, and what came with the request is nowhere in it."""
    async with world.app.client(headers={"Accept": "text/html"}) as browser:
        answer = await browser.get("/auth/callback?state=%3Cscript%3E&code=x")
        assert answer.status_code == 400
        assert answer.headers["Content-Type"].startswith("text/html")
        assert "script-src" not in answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert "<script>" not in answer.text
        assert answer.headers["X-Request-ID"] in answer.text
