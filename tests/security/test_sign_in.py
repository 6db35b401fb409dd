"""Sign-in attacked: states, repeated parameters, forged identities, planted cookies, pages that are framed."""

from __future__ import annotations

import base64
import json
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import RSAKey

from tests.parts.scripted_provider import Answer
from tests.security.kit import World, refused, world
from tornado_sse_auth import SSEAuthenticationMiddleware
from tornado_sse_auth.authorization_server import AuthorizationServer
from tornado_sse_auth.testing import ManualClock


def decoded(token: str) -> dict[str, Any]:
    """The claims of a JWT, whoever signed it."""
    payload = token.split(".")[1]
    return dict(json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))))


async def test_a_state_that_came_too_late(caplog: pytest.LogCaptureFixture) -> None:
    """SEC-21; CVE-2025-68158: eleven minutes after it was begun, in the very browser: 400, the code is not spent."""
    clock = ManualClock()
    async with world(caplog, clock=clock) as running, running.client() as browser:
        callback = await running.begin(browser)
        clock.advance(660)
        with running.nothing_happens(*parse_qs(urlsplit(callback).query)["code"]):
            refused(await browser.get(callback), 400, "invalid_request")


async def test_parameters_that_another_page_would_send(running: World) -> None:
    """SEC-22; CVE-2026-9689: a form is no query, a repeated parameter is none, and neither is half of an answer."""
    async with running.client() as browser:
        callback = await running.begin(browser)
        query = parse_qs(urlsplit(callback).query)
        form = {name: values[0] for name, values in query.items()}
        with running.nothing_happens(*query["code"], *query["state"]):
            refused(await browser.post("/auth/callback", data=form), 405, "method_not_allowed")
            for name in ("state", "code", "iss"):
                refused(await browser.get(f"{callback}&{name}=x"), 400, "invalid_request")
            for name in ("return_to", "login_hint", "scope", "prompt", "reauth"):
                refused(await browser.get(f"/auth/login?{name}=/a&{name}=/a"), 400, "invalid_request")
            for wrong in ({**form, "error": "access_denied"}, {"state": form["state"]}, {"code": form["code"]}):
                refused(await browser.get("/auth/callback", params=wrong), 400, "invalid_request")
        # None of that has spent the sign-in: what the provider sent is still good, once.
        assert (await browser.get(callback)).status_code == 302
        refused(await browser.get(callback), 400, "invalid_request")


def forgeries(running: World, nonce: str) -> dict[str, str]:
    """ID tokens that prove nobody's identity; the unit tests have more of them."""
    scripted = running.scripted
    good = {**decoded(scripted.issue("alice")["id_token"]), "nonce": nonce}
    good.pop("at_hash")
    kid, thief = str(scripted.keys[0].kid), RSAKey.generate_key(2048)
    parts = ({"alg": "none", "kid": kid}, good)
    unsigned = ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts)
    changed: dict[str, dict[str, Any]] = {
        "foreign iss": {"iss": "https://evil.example"},
        "foreign aud": {"aud": "other"},
        "foreign azp": {"azp": "other"},
        "foreign nonce": {"nonce": "x"},
        "expired": {"exp": good["iat"] - 3600},
        "exp 1e300": {"exp": 1e300},
        "no exp": {"exp": None},
        "another access token's hash": {"at_hash": "A" * 22},
    }
    signed = {
        name: scripted.sign({key: value for key, value in {**good, **change}.items() if value is not None})
        for name, change in changed.items()
    }
    return signed | {
        "unsigned": f"{unsigned}.",
        "key in its header": jwt.encode({"alg": "RS256", "jwk": thief.as_dict(private=False)}, good, thief),
        "the name of our key": jwt.encode({"alg": "RS256", "kid": kid}, good, thief),
    }


async def test_a_forged_identity_opens_no_session(running: World) -> None:
    """SEC-26; CVE-2024-37568, CVE-2026-28802: over the whole way: 400, no cookie, no session, and no word of it."""
    async with running.client() as browser:
        for name in forgeries(running, ""):
            login = await browser.get("/auth/login", params={"login_hint": "alice"})
            nonce = parse_qs(urlsplit(login.headers["Location"]).query)["nonce"][0]
            async with httpx.AsyncClient(trust_env=False) as elsewhere:
                callback = (await elsewhere.get(login.headers["Location"])).headers["Location"]
            forged = forgeries(running, nonce)[name]
            running.scripted.script("token", Answer(change={"id_token": forged}))
            stored = running.store.content()
            answer = await browser.get(callback)
            refused(answer, 400, "invalid_request")
            assert running.app.cookie not in answer.headers.get("Set-Cookie", ""), name
            assert running.store.content() == stored
            assert forged not in running.log.text
            running.app.auth.sign_ins._hits.clear()
        await running.sign_in(browser)  # and the genuine one does


async def test_auth_pages_cannot_be_framed_kept_or_left_with_a_referrer(running: World) -> None:
    """SEC-06, SEC-25, SEC-31: every answer of `/auth/*` to a browser, refusals included; text of the request is nowhere
    in a page, whose policy admits no script at all."""
    page = {"Accept": "text/html"}
    async with running.client() as browser:
        for path in (
            "/auth/callback?state=<script>alert(1)</script>&code=x",
            "/auth/callback?error=access_denied&error_description=<b>&state=x",
            "/auth/login?return_to=/a&return_to=/b",
            "/auth/login?scope=%22%3E%3Cscript%3E",
        ):
            answer = await browser.get(path, headers=page)
            assert answer.status_code == 400
            assert answer.headers["Content-Type"].startswith("text/html")
            policy = answer.headers["Content-Security-Policy"]
            assert policy.startswith("default-src 'none'; style-src 'nonce-")
            assert "script-src" not in policy
            assert "frame-ancestors 'none'" in policy
            assert "<script" not in answer.text
            assert "<b>" not in answer.text
        for path in ("/auth/login", "/auth/callback", "/auth/login?scope=%00"):
            answer = await browser.get(path, headers=page)
            assert answer.headers["Referrer-Policy"] == "no-referrer"
        for answer in running.answers:
            assert answer.headers["Cache-Control"] == "no-store"
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]


async def test_a_state_of_another_browser_is_worth_nothing(running: World) -> None:
    """SEC-21, SEC-23; CVE-2026-41425: a sign-in that an attacker began, finished in the victim's browser, with the
    victim's planted or older cookie: 400; the attacker's binding cookie cannot be guessed from the address."""
    async with running.client() as attacker, running.client() as victim:
        await running.sign_in(victim, "alice")
        callback = await running.begin(attacker, login_hint="mallory")
        with running.nothing_happens(*parse_qs(urlsplit(callback).query)["code"]):
            refused(await victim.get(callback), 400, "invalid_request")
            planted = f"{next(iter(attacker.cookies))}={'A' * 43}"
            answer = await victim.get(callback, headers={"Cookie": planted})
            refused(answer, 400, "invalid_request")
        assert (await victim.get("/me")).json()["user_id"].endswith("|alice")


async def test_a_planted_cookie_is_worth_nothing(running: World) -> None:
    """SEC-23; ASVS 7.2.4: whatever session cookie the browser carries into a sign-in (invented, malformed, repeated, or
    a good one that an attacker has planted): the new value is another, and the planted one is 401 at once."""
    attackers = (await running.cookie("mallory"))["Cookie"]
    name = running.app.cookie
    for planted in (f"{name}={'A' * 43}", f"{name}=x", f"{name}={'A' * 43}; {name}={'B' * 43}", attackers):
        async with running.client() as victim, running.client() as thief:
            callback = await running.begin(victim, login_hint="alice")
            binding = "; ".join(f"{cookie}={value}" for cookie, value in victim.cookies.items())
            done = await victim.get(callback, headers={"Cookie": f"{planted}; {binding}"})
            assert done.status_code == 302
            (cookie,) = [value for value in done.headers.get_list("Set-Cookie") if value.startswith(f"{name}=")]
            assert "Secure" not in cookie  # plain http, loopback
            value = cookie.partition(";")[0].partition("=")[2]
            assert len(value) == 43
            assert value not in planted
            assert (await victim.get("/me")).json()["user_id"].endswith("|alice")
            assert (await thief.get("/me", headers={"Cookie": planted})).status_code in (400, 401)


async def test_the_cookie_under_https(caplog: pytest.LogCaptureFixture) -> None:
    """SEC-23; GHSA-f24x: `__Host-`, Secure, HttpOnly, SameSite=Lax, no Domain, for every cookie: of the session,
    of a sign-in under way, of a client's request, and where they are taken back; one of the plain name is none."""

    def rules(auth: SSEAuthenticationMiddleware) -> list[Any]:
        return AuthorizationServer(auth, resources=("/mcp",)).routes()

    secure: dict[str, Any] = {"public_url": "https://app.example", "rules": rules}
    async with world(caplog, **secure) as running, running.client() as browser:
        host = {"Host": "app.example"}
        assert running.app.cookie == "__Host-session"
        login = await browser.get("/auth/login", headers=host)
        async with httpx.AsyncClient(trust_env=False) as elsewhere:
            back = urlsplit((await elsewhere.get(login.headers["Location"])).headers["Location"])
        assert (back.scheme, back.netloc) == ("https", "app.example")
        binding = login.headers["Set-Cookie"].partition(";")[0]
        done = await browser.get(f"{back.path}?{back.query}", headers={**host, "Cookie": binding})
        client = {"redirect_uris": ["https://client.example/cb"], "token_endpoint_auth_method": "none"}
        client_id = (await browser.post("/oauth/register", json=client, headers=host)).json()["client_id"]
        query = {"client_id": client_id, "redirect_uri": "https://client.example/cb", "response_type": "code"}
        query |= {"code_challenge": "A" * 43, "code_challenge_method": "S256"}
        asked = await browser.get("/oauth/authorize", params=query, headers=host)
        value = done.headers.get_list("Set-Cookie")[0].partition(";")[0].partition("=")[2]
        own = {**host, "Origin": "https://app.example", "Cookie": f"__Host-session={value}"}
        for name, status in (("__Host-session", 200), ("session", 401), ("__Secure-session", 401)):
            answer = await browser.get("/me", headers={**host, "Cookie": f"{name}={value}"})
            assert answer.status_code == status, name
        ended = await browser.post("/auth/logout", headers=own)
        assert ended.status_code == 204
        answers = (login, done, asked, ended)
        cookies = [cookie for answer in answers for cookie in answer.headers.get_list("Set-Cookie")]
        # Begun; the session; the sign-in's own, taken back; the client's request; the session, taken back.
        names = [cookie.partition("=")[0] for cookie in cookies]
        assert names[1:2] + names[3:] == ["__Host-session", "__Host-authorize", "__Host-session"]
        assert names[0] == names[2]
        assert names[0].startswith("__Host-sign-in-")
        for cookie in cookies:
            attributes = {part.strip().partition("=")[0].lower() for part in cookie.split(";")[1:]}
            assert cookie.startswith("__Host-")
            assert {"secure", "httponly", "samesite", "path"} <= attributes
            assert "domain" not in attributes
            assert "SameSite=Lax" in cookie
            assert "Path=/;" in f"{cookie};"
