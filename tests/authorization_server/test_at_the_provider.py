"""Requests whose user must go to the provider first: there, back to the request, and on to the consent page."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from dataclasses import replace
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.authorization_server.kit import Browser, Installation, World, answer_of, world
from tests.parts.provider import Provider
from tornado_sse_auth import OAuthProvider, Secret, Session

SIGN_IN = "openid offline_access profile content:read"


@pytest.fixture
async def here(provider: Provider) -> AsyncIterator[World]:
    upstream = OAuthProvider(
        issuer=provider.issuer, client_id=provider.client_id, client_secret=provider.client_secret, scopes=SIGN_IN
    )
    async with world(provider=upstream) as running:
        await provider.add_redirect_uri(f"{running.url}/auth/callback")
        yield running


async def client_of(here: World, **more: str) -> Installation:
    client = Installation(here, **more)
    await client.register()
    return client


def account() -> str:
    return f"user-{secrets.token_hex(4)}"


async def provider_request(browser: Browser, query: dict[str, str]) -> dict[str, str]:
    """What a new request asks of the provider."""
    response = await browser.http.get("/oauth/authorize", params=query)
    while not response.headers["Location"].startswith("http"):
        response = await browser.http.get(response.headers["Location"])
    return {name: values[0] for name, values in parse_qs(urlsplit(response.headers["Location"]).query).items()}


async def test_nobody_is_signed_in(here: World, provider: Provider) -> None:
    """One trip with the hint, then the page, for the account that signed in; the next time no trip."""
    client, browser, name = await client_of(here, scope="content:read"), here.browser(), account()
    page = await browser.open("/oauth/authorize", **client.query(login_hint=name))
    assert page.status_code == 200
    assert page.url.path == "/oauth/authorize"
    assert name in page.text
    response = await client.exchange(answer_of(await browser.press(page))["code"])
    client.tokens = response.json()
    assert (await client.get()).json()["user_id"] == f"{provider.issuer}|{name}"
    again = await browser.http.get("/oauth/authorize", params=client.query())
    assert again.status_code == 200
    # The hint is never compared with who is signed in.
    assert name in (await browser.open("/oauth/authorize", **client.query(login_hint=account()))).text


async def test_another_account(here: World, provider: Provider) -> None:
    """By `prompt`, or by the page's link: the provider asks, and the page is for whom it names. Once, not in a loop."""
    client, browser, name = await client_of(here), here.browser(), account()
    page = await browser.open("/oauth/authorize", **client.query(login_hint=name))
    link = page.text.partition('<a href="')[2].partition('"')[0].replace("&amp;", "&")
    assert parse_qs(urlsplit(link).query)["prompt"] == ["select_account"]
    back = await browser.open(link)
    assert (back.status_code, back.url.path) == (200, "/oauth/authorize")
    other = account()
    browser.forget_the_provider()
    page = await browser.open("/oauth/authorize", **client.query(prompt="login", login_hint=other))
    assert other in page.text
    assert answer_of(await browser.press(page)).keys() == {"code", "state", "iss"}
    for prompt in ("login", "select_account"):  # this provider knows but one of the two
        asked = await provider_request(browser, client.query(prompt=prompt))
        assert asked["prompt"].split() == ["login", "consent"]
    assert (await browser.open("/oauth/authorize", **client.query(prompt="consent"))).status_code == 200


async def test_a_scope_that_the_session_lacks(here: World, provider: Provider) -> None:
    """Asked for at the provider, in addition, once; what that refuses is not granted, and nobody goes in circles."""
    client, browser, name = await client_of(here), here.browser(), account()
    await client.connect(browser, login_hint=name)
    assert client.tokens["scope"] == "content:read"
    more = client.query(scope="content:read events:write", login_hint=name)
    asked = await provider_request(browser, more)
    assert set(asked["scope"].split()) == {*SIGN_IN.split(), "events:write"}
    await client.connect(browser, scope="content:read events:write", login_hint=name)
    assert set(client.tokens["scope"].split()) == {"content:read", "events:write"}
    limited = account()
    await provider.change_account(limited, scope=SIGN_IN)
    fresh = here.browser()
    await client.connect(fresh, scope="content:read events:write", login_hint=limited)
    assert client.tokens["scope"] == "content:read"


async def test_a_session_that_needs_its_user_is_revived(here: World, provider: Provider) -> None:
    """From the browser that has its cookie, and from one that has none; the grants on it go on with their tokens."""
    name = account()
    client, browser = await client_of(here), here.browser()
    await client.connect(browser, login_hint=name)
    session_id = (await client.get()).json()["session_id"]
    for again in (browser, here.browser()):
        session = await here.session(session_id)
        waiting = await here.auth.store.require_reauthorization(
            _with_reauth(session), spent_version=session.token_version
        )
        assert waiting is not None
        here.auth.sessions.watch.changed(waiting)
        assert (await client.get()).status_code == 401
        assert (await client.refresh()).json()["error"] == "invalid_grant"
        newer = await client_of(here)
        await newer.connect(again, login_hint=name)
        assert (await newer.get()).json()["session_id"] == session_id
        assert (await client.get()).status_code == 200
        assert (await client.refresh()).status_code == 200


async def test_somebody_else_signs_in(here: World) -> None:
    """The session that needs its user stays as it is; the grant is the other one's."""
    client, browser, name, other = await client_of(here), here.browser(), account(), account()
    await client.connect(browser, login_hint=name)
    session = await here.session((await client.get()).json()["session_id"])
    waiting = await here.auth.store.require_reauthorization(_with_reauth(session), spent_version=session.token_version)
    assert waiting is not None
    here.auth.sessions.watch.changed(waiting)
    newer = await client_of(here)
    browser.forget_the_provider()
    await newer.connect(browser, login_hint=other)
    assert (await newer.get()).json()["user_id"].endswith(other)
    assert (await client.get()).status_code == 401
    assert (await here.session(session.id)).state == waiting.state


async def test_the_user_says_no_at_the_provider(here: World, provider: Provider) -> None:
    """A page of ours: the request is still there to be taken up again."""
    client, browser = await client_of(here), here.browser()
    asked = await provider_request(browser, client.query())
    refusal = {
        "error": "access_denied",
        "state": asked["state"],
        "iss": here.auth.provider.issuer if here.auth.provider else "",
    }
    answer = await browser.http.get("/auth/callback", params=refusal)
    assert (answer.status_code, answer.headers.get("Location")) == (403, None)


async def test_coming_back_without_having_signed_in(here: World) -> None:
    """Whoever turned round at the provider is sent there again, not on; some times, then they are told."""
    client, browser, name = await client_of(here), here.browser(), account()
    await client.connect(browser, login_hint=name)
    for query, asked in ((client.query(prompt="login"), browser), (client.query(), here.browser())):
        answer = await asked.http.get("/oauth/authorize", params=query)
        request = parse_qs(urlsplit(answer.headers["Location"]).query)["return_to"][0]
        for _ in range(4):
            answer = await asked.http.get(request)
            assert answer.headers["Location"].startswith("/auth/login?")
        answer = await asked.http.get(request)
        assert answer.status_code == 400
    foreign = await here.browser().http.get(request)
    assert foreign.status_code == 400
    assert "cookies" in foreign.text


def _with_reauth(session: Session) -> Session:
    return replace(session, reauth=Secret.random(), reauth_reason="invalid_grant")
