"""The demo provider, asked by an OAuth client that others wrote, and by somebody who means harm."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from authlib.common.security import generate_token
from authlib.integrations.base_client.errors import OAuthError
from authlib.integrations.httpx_client import AsyncOAuth2Client

from sample_server.demo_provider import DemoProvider
from tornado_sse_auth import ConfigurationError, Secret

REDIRECT = "http://127.0.0.1:8000/auth/callback"
SECRET = "a-secret-of-the-sample"


@pytest.fixture
async def demo() -> AsyncIterator[DemoProvider]:
    provider = DemoProvider(client_id="sample", client_secret=Secret(SECRET), redirect_uris=[REDIRECT])
    await provider.start()
    yield provider
    await provider.close()


@pytest.fixture
async def browser() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(trust_env=False) as client:
        yield client


def oauth_client(scope: str = "openid offline_access profile") -> AsyncOAuth2Client:
    return AsyncOAuth2Client(
        "sample", SECRET, scope=scope, redirect_uri=REDIRECT, code_challenge_method="S256", leeway=0, trust_env=False
    )


async def authorize(
    demo: DemoProvider, browser: httpx.AsyncClient, client: AsyncOAuth2Client, **more: Any
) -> tuple[str, str]:
    """Callback address and verifier."""
    verifier = generate_token(48)
    url, _ = client.create_authorization_url(f"{demo.issuer}/authorize", code_verifier=verifier, **more)
    answer = await browser.get(url)
    assert answer.status_code == 303, answer.text
    return answer.headers["Location"], verifier


async def test_the_whole_way_and_a_token_used_twice(demo: DemoProvider, browser: httpx.AsyncClient) -> None:
    """Code with PKCE, userinfo, rotation; the second use of a refresh token ends the family."""
    async with oauth_client() as client:
        callback, verifier = await authorize(demo, browser, client, login_hint="ada", nonce="n")
        assert parse_qs(urlsplit(callback).query)["iss"] == [demo.issuer]
        first = await client.fetch_token(
            f"{demo.issuer}/token", authorization_response=callback, code_verifier=verifier
        )
        assert first["expires_in"] == 60
        userinfo = (await client.get(f"{demo.issuer}/userinfo")).json()
        assert (userinfo["sub"], userinfo["subscription_level"]) == ("ada", "pro")
        second = await client.refresh_token(f"{demo.issuer}/token", refresh_token=first["refresh_token"])
        assert second["refresh_token"] != first["refresh_token"]
        for spent in (first, second):  # the reuse, and what it ended
            with pytest.raises(OAuthError, match="invalid_grant"):
                await client.refresh_token(f"{demo.issuer}/token", refresh_token=spent["refresh_token"])
        assert (await client.get(f"{demo.issuer}/userinfo")).status_code == 401


async def test_a_code_is_used_once(demo: DemoProvider, browser: httpx.AsyncClient) -> None:
    """A second use ends what the first gave; a wrong verifier does not burn the code."""
    async with oauth_client() as client:
        callback, verifier = await authorize(demo, browser, client, login_hint="alan")
        token_url = f"{demo.issuer}/token"
        with pytest.raises(OAuthError, match="invalid_grant"):
            await client.fetch_token(token_url, authorization_response=callback, code_verifier=generate_token(48))
        tokens = await client.fetch_token(token_url, authorization_response=callback, code_verifier=verifier)
        with pytest.raises(OAuthError, match="invalid_grant"):
            await client.fetch_token(token_url, authorization_response=callback, code_verifier=verifier)
        with pytest.raises(OAuthError, match="invalid_grant"):
            await client.refresh_token(token_url, refresh_token=tokens["refresh_token"])


async def test_a_user_is_chosen_on_the_page(demo: DemoProvider, browser: httpx.AsyncClient) -> None:
    """The form works once; Cancel says no; nothing of the request is written unescaped."""
    client = oauth_client("openid <b>x</b>")
    url, _ = client.create_authorization_url(f"{demo.issuer}/authorize", code_verifier=generate_token(48))
    for user, expected in (("grace", "code"), ("", "error")):
        page = await browser.get(url)
        assert page.status_code == 200
        assert "<b>x" not in page.text
        policy = page.headers["Content-Security-Policy"]
        assert "frame-ancestors 'none'" in policy
        assert "form-action" not in policy
        key = re.findall(r'name="request" value="([^"]+)"', page.text)
        answer = await browser.post(f"{demo.issuer}/authorize", data={"request": key[0], "user": user})
        assert expected in parse_qs(urlsplit(answer.headers["Location"]).query)
        again = await browser.post(f"{demo.issuer}/authorize", data={"request": key[0], "user": user})
        assert (again.status_code, "Location" in again.headers) == (400, False)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"client_id": "other"}, None),
        ({"redirect_uri": REDIRECT + "/"}, None),
        ({"redirect_uri": "https://evil.example/"}, None),
        ({"code_challenge": None}, "invalid_request"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"prompt": "none"}, "login_required"),
    ],
)
async def test_bad_requests(
    demo: DemoProvider, browser: httpx.AsyncClient, change: dict[str, str | None], error: str | None
) -> None:
    """Without a known client and redirect nobody is sent anywhere; afterwards the client is told."""
    query = {
        "client_id": "sample",
        "redirect_uri": REDIRECT,
        "response_type": "code",
        "scope": "openid",
        "code_challenge": "x" * 43,
        "code_challenge_method": "S256",
        **change,
    }
    parameters = {name: value for name, value in query.items() if value is not None}
    answer = await browser.get(f"{demo.issuer}/authorize", params=parameters)
    if error is None:
        assert (answer.status_code, "Location" in answer.headers) == (400, False)
    else:
        assert parse_qs(urlsplit(answer.headers["Location"]).query)["error"] == [error]
    repeated = await browser.get(f"{demo.issuer}/authorize?{httpx.QueryParams(parameters)}&client_id=sample")
    assert (repeated.status_code, "Location" in repeated.headers) == (400, False)


async def test_only_on_loopback_and_only_for_its_client(demo: DemoProvider, browser: httpx.AsyncClient) -> None:
    """There are no passwords, so nobody else may reach it."""
    with pytest.raises(ConfigurationError):
        DemoProvider(client_id="x", client_secret=Secret("y"), redirect_uris=[], address="0.0.0.0")
    form = {"grant_type": "refresh_token", "refresh_token": "x"}
    for auth in (("sample", "wrong"), ("other", SECRET)):
        answer = await browser.post(f"{demo.issuer}/token", data=form, auth=auth)
        assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")
