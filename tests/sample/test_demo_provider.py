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
from joserfc import jwt
from joserfc.jwk import KeySet

from sample_server.demo_provider import DemoProvider
from sample_server.demo_provider.grants import InvalidGrant
from tornado_sse_auth import ConfigurationError, Secret
from tornado_sse_auth.testing import ManualClock

REDIRECT = "http://127.0.0.1:8000/auth/callback"
SECRET = "a-secret-of-the-sample"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def demo(clock: ManualClock) -> AsyncIterator[DemoProvider]:
    provider = DemoProvider(client_id="sample", client_secret=Secret(SECRET), redirect_uris=[REDIRECT], clock=clock)
    await provider.start()
    yield provider
    await provider.close()


@pytest.fixture
async def browser() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(trust_env=False) as client:
        yield client


def oauth_client(
    scope: str = "openid offline_access profile", method: str = "client_secret_basic"
) -> AsyncOAuth2Client:
    return AsyncOAuth2Client(
        "sample",
        SECRET,
        token_endpoint_auth_method=method,
        scope=scope,
        redirect_uri=REDIRECT,
        code_challenge_method="S256",
        leeway=0,
        trust_env=False,
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


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post"])
async def test_the_whole_way_and_a_token_used_twice(
    demo: DemoProvider, browser: httpx.AsyncClient, method: str
) -> None:
    """Code with PKCE, userinfo, rotation; the second use of a refresh token ends the family."""
    async with oauth_client(method=method) as client:
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


async def test_what_the_metadata_says_is_so(demo: DemoProvider, browser: httpx.AsyncClient) -> None:
    """Endpoints, key set and ID token found by discovery alone; the nonce is in the first ID token only; nobody else's
    sign-in notices a revocation."""
    metadata = (await browser.get(f"{demo.issuer}/.well-known/openid-configuration")).json()
    assert metadata["issuer"] == demo.issuer
    key_set = (await browser.get(metadata["jwks_uri"])).json()
    assert "d" not in key_set["keys"][0]
    keys = KeySet.import_key_set(key_set)
    async with oauth_client() as client, oauth_client() as other:
        callback, verifier = await authorize(demo, browser, client, login_hint="alan", nonce="n")
        tokens = await client.fetch_token(
            metadata["token_endpoint"], authorization_response=callback, code_verifier=verifier
        )
        claims = jwt.decode(tokens["id_token"], keys, metadata["id_token_signing_alg_values_supported"]).claims
        assert (claims["iss"], claims["aud"], claims["sub"], claims["nonce"]) == (demo.issuer, "sample", "alan", "n")
        assert claims["subscription_level"] == "free"
        tokens = await client.refresh_token(metadata["token_endpoint"])
        refreshed = jwt.decode(tokens["id_token"], keys, metadata["id_token_signing_alg_values_supported"]).claims
        assert (refreshed["sub"], refreshed["sid"], "nonce" in refreshed) == ("alan", claims["sid"], False)

        callback, verifier = await authorize(demo, browser, other, login_hint="alan")
        await other.fetch_token(metadata["token_endpoint"], authorization_response=callback, code_verifier=verifier)
        answer = await client.revoke_token(metadata["revocation_endpoint"], tokens["refresh_token"])
        assert answer.status_code == 200
        assert (await client.get(metadata["userinfo_endpoint"])).status_code == 401
        assert (await other.get(metadata["userinfo_endpoint"])).status_code == 200


async def test_what_was_given_expires(demo: DemoProvider, browser: httpx.AsyncClient, clock: ManualClock) -> None:
    """A code and an access token live a minute; a refresh token a day after its last use."""
    token_url, userinfo_url = f"{demo.issuer}/token", f"{demo.issuer}/userinfo"
    async with oauth_client() as client:
        late, late_verifier = await authorize(demo, browser, client, login_hint="ada")
        clock.advance(60)
        with pytest.raises(OAuthError, match="invalid_grant"):
            await client.fetch_token(token_url, authorization_response=late, code_verifier=late_verifier)
        callback, verifier = await authorize(demo, browser, client, login_hint="ada")
        first = await client.fetch_token(token_url, authorization_response=callback, code_verifier=verifier)
        bearer = {"Authorization": f"Bearer {first['access_token']}"}
        clock.advance(59)
        answer = await browser.get(userinfo_url, headers=bearer)
        assert (answer.status_code, answer.headers["Cache-Control"]) == (200, "no-store")
        clock.advance(1)
        assert (await browser.get(userinfo_url, headers=bearer)).status_code == 401
        tokens = first
        for _ in range(2):
            clock.advance(86_000)
            tokens = await client.refresh_token(token_url, refresh_token=tokens["refresh_token"])
        clock.advance(86_400)
        with pytest.raises(OAuthError, match="invalid_grant"):
            await client.refresh_token(token_url, refresh_token=tokens["refresh_token"])


async def test_a_token_spent_long_ago_is_still_known(
    demo: DemoProvider, browser: httpx.AsyncClient, clock: ManualClock
) -> None:
    """Reuse is noticed however many rotations later, and other people's rotations push nobody out."""
    async with oauth_client() as client:
        callback, verifier = await authorize(demo, browser, client, login_hint="ada")
        first = await client.fetch_token(
            f"{demo.issuer}/token", authorization_response=callback, code_verifier=verifier
        )
    newest = first["refresh_token"]
    for _ in range(20_000):
        newest = demo.grants.refresh(newest).refresh_token or ""
    with pytest.raises(InvalidGrant):
        demo.grants.refresh(first["refresh_token"])
    with pytest.raises(InvalidGrant):
        demo.grants.refresh(newest)


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
        ({"prompt": "none login"}, "invalid_request"),
        ({"request_uri": "http://127.0.0.1:1/"}, "request_uri_not_supported"),
        ({"scope": 'openid "'}, "invalid_scope"),
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


@pytest.mark.parametrize(("prompt", "asks"), [("consent", False), ("none", False), ("select_account", True)])
async def test_prompt_beside_a_hint(demo: DemoProvider, browser: httpx.AsyncClient, prompt: str, asks: bool) -> None:
    """A hint answers every prompt but those that want the user to be asked (OpenID Connect Core, section 3.1.2.1)."""
    url, _ = oauth_client().create_authorization_url(
        f"{demo.issuer}/authorize", code_verifier=generate_token(48), login_hint="ada", prompt=prompt
    )
    answer = await browser.get(url)
    assert (answer.status_code, "Location" in answer.headers) == ((200, False) if asks else (303, True))


async def test_only_on_loopback_and_only_for_its_client(demo: DemoProvider, browser: httpx.AsyncClient) -> None:
    """There are no passwords, so nobody else may reach it."""
    for address in ("0.0.0.0", "::", "10.0.0.1", "localhost"):
        with pytest.raises(ConfigurationError):
            DemoProvider(client_id="x", client_secret=Secret("y"), redirect_uris=[], address=address)
    answer = await browser.get(f"{demo.issuer}/authorize", headers={"Host": "rebound.example"})
    assert (answer.status_code, "Location" in answer.headers) == (421, False)
    form = {"grant_type": "refresh_token", "refresh_token": "x"}
    for auth in (("sample", "wrong"), ("other", SECRET)):
        answer = await browser.post(f"{demo.issuer}/token", data=form, auth=auth)
        assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")
    both = {**form, "client_secret": SECRET}
    repeated = b"grant_type=refresh_token&refresh_token=x&refresh_token=y"
    for more in ({"data": both}, {"content": repeated}):
        answer = await browser.post(
            f"{demo.issuer}/token",
            auth=("sample", SECRET),
            headers={"Content-Type": "application/x-www-form-urlencoded"},
            **more,
        )
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")
