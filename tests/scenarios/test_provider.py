"""OAuthProvider against a real, certified provider, and against one that misbehaves by script."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from tests.parts.process import free_port
from tests.parts.provider import Provider
from tests.parts.scripted_provider import Answer, ScriptedProvider
from tornado_sse_auth.errors import ConfigurationError, InvalidRequestError, ProviderUnavailableError
from tornado_sse_auth.identity import Secret
from tornado_sse_auth.oauth import (
    Callback,
    ClientRejected,
    IdentityRejected,
    OAuthProvider,
    RefreshRejected,
    SignInAttempt,
    SignInRequest,
    Spent,
    TokenResponse,
    TransientFailure,
    default_identity_mapper,
)
from tornado_sse_auth.testing import ManualClock

CALLBACK = "http://127.0.0.1:8000/auth/callback"


@asynccontextmanager
async def started(issuer: str, **options: Any) -> AsyncIterator[OAuthProvider]:
    known = {"client_id": Provider.client_id, "client_secret": Provider.client_secret, "timeout": 5.0}
    oauth = OAuthProvider(issuer=issuer, **(known | options))
    try:
        await oauth.start()
        yield oauth
    finally:
        await oauth.close()


@asynccontextmanager
async def scripted(**options: Any) -> AsyncIterator[tuple[ScriptedProvider, OAuthProvider]]:
    async with ScriptedProvider() as provider, started(provider.issuer, **options) as oauth:
        yield provider, oauth


async def come_back(url: str) -> Callback:
    """Play the browser from the authorization URL to the callback."""
    async with httpx.AsyncClient(timeout=10, trust_env=False) as browser:
        for _ in range(20):
            if url.startswith(CALLBACK):
                return Callback.read(parse_qs(urlsplit(url).query))
            response = await browser.get(url)
            assert response.has_redirect_location, response.text
            url = str(response.url.join(response.headers["location"]))
    raise AssertionError("no callback")


async def sign_in(oauth: OAuthProvider, account: str) -> tuple[SignInAttempt, TokenResponse]:
    attempt = SignInAttempt.begin(browser=Secret("b"), return_to="/", scopes=oauth.scopes_for(None), now=0.0)
    url = await oauth.authorization_url(SignInRequest(attempt=attempt, login_hint=account), CALLBACK)
    assert attempt.verifier.reveal() not in url
    callback = await come_back(url)
    assert callback.state == attempt.state
    code = await oauth.accept_callback(callback)
    return attempt, await oauth.exchange_code(code, redirect_uri=CALLBACK, verifier=attempt.verifier)


# With the real provider


@pytest.mark.real("provider")
async def test_a_sign_in_and_its_refreshes(provider: Provider, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with started(provider.issuer) as oauth:
        attempt, tokens = await sign_in(oauth, "pro-provider")
        assert tokens.refresh_token is not None
        assert tokens.id_token is not None
        assert tokens.expires_in == 600
        claims = await oauth.verify_id_token(tokens.id_token, nonce=attempt.nonce, access_token=tokens.access_token)
        more = await oauth.userinfo(tokens.access_token, subject=claims["sub"])
        identity = default_identity_mapper({**more, **claims}, tokens.scopes or attempt.scopes)
        assert identity.user_id == f"{provider.issuer}|pro-provider"
        assert (identity.permissions, identity.subscription) == ({"events"}, "pro")
        assert {"openid", "offline_access", "profile"} == identity.scopes

        renewed = await oauth.refresh(tokens.refresh_token)
        assert renewed.access_token != tokens.access_token
        assert renewed.refresh_token is not None
        assert renewed.id_token is not None
        await oauth.verify_id_token(renewed.id_token, nonce=None, access_token=renewed.access_token)

        await oauth.revoke(renewed.refresh_token, "refresh_token")
        with pytest.raises(RefreshRejected):
            await oauth.refresh(renewed.refresh_token)
        assert oauth.alarm is None
    secrets = (tokens.access_token, tokens.refresh_token, renewed.refresh_token, tokens.id_token, attempt.verifier)
    assert not any(secret.reveal() in caplog.text for secret in secrets)


@pytest.mark.real("provider")
async def test_what_is_bound_to_one_sign_in_fits_no_other(provider: Provider) -> None:
    """SEC-26, SEC-21: another nonce, another client, a code twice, another verifier."""
    async with started(provider.issuer) as oauth:
        attempt, tokens = await sign_in(oauth, "bound")
        other, _ = await sign_in(oauth, "bound-too")
        assert tokens.id_token is not None
        with pytest.raises(IdentityRejected):
            await oauth.verify_id_token(tokens.id_token, nonce=other.nonce)
        with pytest.raises(IdentityRejected):
            await oauth.userinfo(tokens.access_token, subject="bound-too")
        begun = SignInAttempt.begin(browser=Secret("b"), return_to="/", scopes=oauth.scopes, now=0.0)
        url = await oauth.authorization_url(SignInRequest(attempt=begun, login_hint="bound"), CALLBACK)
        code = await oauth.accept_callback(await come_back(url))
        with pytest.raises(InvalidRequestError):
            await oauth.exchange_code(code, redirect_uri=CALLBACK, verifier=attempt.verifier)
        await oauth.exchange_code(code, redirect_uri=CALLBACK, verifier=begun.verifier)
        with pytest.raises(InvalidRequestError):
            await oauth.exchange_code(code, redirect_uri=CALLBACK, verifier=begun.verifier)
    async with started(provider.issuer, client_id="other") as stranger:
        with pytest.raises(IdentityRejected):
            await stranger.verify_id_token(tokens.id_token, nonce=attempt.nonce)


@pytest.mark.real("provider")
async def test_a_wrong_client_secret_is_an_alarm(provider: Provider) -> None:
    """REL-10."""
    async with started(provider.issuer, client_secret="wrong") as oauth:
        with pytest.raises(ClientRejected):
            await oauth.refresh(Secret("any"))
        assert oauth.alarm
        with pytest.raises(ProviderUnavailableError) as failure:
            await oauth.exchange_code(Secret("any"), redirect_uri=CALLBACK, verifier=Secret.random())
        assert isinstance(failure.value.__cause__, ClientRejected)


@pytest.mark.real("provider")
async def test_a_frozen_provider_may_have_spent_the_token(own_provider: Provider) -> None:
    """A provider frozen during the call rotates all the same: nothing may be concluded from the time-out."""
    async with started(own_provider.issuer, refresh_timeout=1.0) as oauth:
        _, tokens = await sign_in(oauth, "frozen")
        assert tokens.refresh_token is not None
        with own_provider.stopped(), pytest.raises(TransientFailure) as failure:
            await oauth.refresh(tokens.refresh_token)
        assert failure.value.spent is Spent.UNKNOWN


@pytest.mark.real("provider")
async def test_a_provider_that_comes_back(own_provider: Provider, caplog: pytest.LogCaptureFixture) -> None:
    own_provider.stop()
    async with started(own_provider.issuer) as oauth:
        assert "cannot be reached" in caplog.text
        with pytest.raises(ProviderUnavailableError):
            await oauth.check()
        with pytest.raises(TransientFailure) as failure:
            await oauth.refresh(Secret("any"))
        assert failure.value.spent is Spent.UNSPENT
        await asyncio.to_thread(own_provider.start)
        await oauth.check()
        _, tokens = await sign_in(oauth, "returning")
        assert tokens.refresh_token is not None


# With the scripted one


@pytest.mark.parametrize(
    ("answer", "spent"),
    [
        (Answer(status=500, body="<html>no</html>"), Spent.UNSPENT),
        (Answer(status=429, body='{"detail": "later"}', headers={"Retry-After": "7"}), Spent.UNSPENT),
        (Answer(status=302, body="", headers={"Location": "/elsewhere"}), Spent.UNSPENT),
        (Answer(delivery="cut"), Spent.UNKNOWN),
        (Answer(delivery="cut_midway"), Spent.UNKNOWN),
        (Answer(delivery="hang"), Spent.UNKNOWN),
        (Answer(delivery="drip"), Spent.UNKNOWN),
        (Answer(delivery="gzip"), Spent.UNKNOWN),
        (Answer(delivery="endless"), Spent.UNKNOWN),
        (Answer(body="<html>Welcome</html>"), Spent.UNKNOWN),
        (Answer(change={"access_token": None}), Spent.UNKNOWN),
        (Answer(change={"token_type": "mac"}), Spent.UNKNOWN),
    ],
    ids=lambda value: (
        (value.delivery if value.delivery != "whole" else f"{value.status or value.body or 'changed'}")
        if isinstance(value, Answer)
        else value.value
    ),
)
async def test_what_a_failed_refresh_has_spent(answer: Answer, spent: Spent) -> None:
    """REL-12, REL-13, REL-15, REL-16."""
    async with scripted(refresh_timeout=1.0) as (provider, oauth):
        provider.script("token", answer)
        token = Secret(provider.issue("alice")["refresh_token"])
        with pytest.raises(TransientFailure) as failure:
            await oauth.refresh(token)
        assert failure.value.spent is spent
        assert failure.value.retry_after == (7.0 if answer.status == 429 else None)
        assert len(provider.calls("token")) == 1
        assert oauth.alarm is None


async def test_a_secret_does_not_follow_a_redirect() -> None:
    """SEC-28."""
    async with scripted() as (provider, oauth):
        provider.script("token", Answer(status=307, headers={"Location": f"{provider.issuer}/token"}))
        with pytest.raises(TransientFailure):
            await oauth.refresh(Secret(provider.issue("alice")["refresh_token"]))
        assert len(provider.calls("token")) == 1


async def test_an_alarm_ends_with_the_next_success() -> None:
    """REL-10."""
    async with scripted() as (provider, oauth):
        token = Secret(provider.issue("alice")["refresh_token"])
        provider.script("token", Answer(status=400, body='{"error":"unauthorized_client"}'))
        with pytest.raises(ClientRejected):
            await oauth.refresh(token)
        assert oauth.alarm
        await oauth.refresh(token)
        assert oauth.alarm is None


@pytest.mark.parametrize(
    "metadata",
    [
        {"issuer": "https://other.example"},
        {"token_endpoint": "http://provider.example/token"},
        {"authorization_endpoint": "javascript:alert(1)"},
        {"token_endpoint_auth_methods_supported": ["private_key_jwt"]},
    ],
)
async def test_a_start_that_is_refused(metadata: dict[str, Any]) -> None:
    """SEC-28. Found out later, it is an alarm and no error of our own."""
    async with ScriptedProvider() as provider:
        good = provider.metadata
        provider.metadata = good | metadata
        with pytest.raises(ConfigurationError):
            async with started(provider.issuer):
                pass
        provider.metadata = good
        provider.script("discovery", Answer(status=503), Answer(status=503))
        clock = ManualClock()
        async with started(provider.issuer, clock=clock) as oauth:
            provider.metadata = good | metadata
            with pytest.raises(ProviderUnavailableError):
                await oauth.check()
            clock.advance(2)  # no sooner is it asked again
            with pytest.raises(TransientFailure):
                await oauth.refresh(Secret("any"))
            assert oauth.alarm


async def test_a_discovery_that_redirects_is_refused() -> None:
    """SEC-28."""
    async with ScriptedProvider() as provider:
        provider.script("discovery", Answer(status=301, headers={"Location": "https://other.example/"}))
        with pytest.raises(ConfigurationError, match="redirects"):
            async with started(provider.issuer):
                pass


async def test_nobody_there_does_not_hold_up_the_start(caplog: pytest.LogCaptureFixture) -> None:
    async with started(f"http://127.0.0.1:{free_port()}") as oauth:
        assert "cannot be reached" in caplog.text
        with pytest.raises(ProviderUnavailableError):
            await oauth.check()


class Recorder:
    def __init__(self) -> None:
        self.names: list[str] = []

    def timing(self, name: str, seconds: float) -> None:
        assert seconds >= 0
        self.names.append(name)


async def test_checks_at_the_same_time_are_one() -> None:
    metrics = Recorder()
    async with scripted(metrics=metrics) as (provider, oauth):
        gate = asyncio.Event()
        provider.script("discovery", Answer(gate=gate))
        checks = asyncio.gather(*(oauth.check() for _ in range(50)))
        await provider.wait_for_calls("discovery", 2)
        gate.set()
        await asyncio.wait_for(checks, 5)
        assert len(provider.calls("discovery")) == 2  # the start's, and this one
        assert metrics.names == ["provider.check"] * 50


async def test_closing_ends_what_is_under_way() -> None:
    async with scripted() as (provider, oauth):
        provider.script("discovery", Answer(delivery="hang"))
        check = asyncio.create_task(oauth.check())
        await provider.wait_for_calls("discovery", 2)
        await asyncio.wait_for(oauth.close(), 5)
        with pytest.raises(ProviderUnavailableError):
            await check
        await oauth.close()
        with pytest.raises(TransientFailure) as failure:
            await oauth.refresh(Secret("any"))
        assert failure.value.spent is Spent.UNSPENT


async def test_keys_that_rotate() -> None:
    """SEC-27: a new key is found when a token names it; its fetch failing is nobody's sign-out."""
    async with scripted() as (provider, oauth):
        before = Secret(provider.issue("alice")["id_token"])
        assert (await oauth.verify_id_token(before, nonce=None))["sub"] == "alice"
        provider.rotate_keys()
        after = Secret(provider.issue("alice")["id_token"])
        await oauth.verify_id_token(after, nonce=None)
        await oauth.verify_id_token(before, nonce=None)
        assert len(provider.calls("jwks")) == 2
        provider.rotate_keys()
        with pytest.raises(IdentityRejected):
            await oauth.verify_id_token(Secret(provider.issue("alice")["id_token"]), nonce=None)
        assert len(provider.calls("jwks")) == 2
    async with scripted() as (provider, oauth):
        provider.script("jwks", Answer(status=500))
        with pytest.raises(ProviderUnavailableError):
            await oauth.verify_id_token(before, nonce=None)


async def test_an_id_token_of_another_answer() -> None:
    """SEC-26: `at_hash` binds an ID token to the access token that came with it."""
    async with scripted() as (provider, oauth):
        first, second = provider.issue("alice"), provider.issue("alice")
        id_token = Secret(first["id_token"])
        await oauth.verify_id_token(id_token, nonce=None, access_token=Secret(first["access_token"]))
        with pytest.raises(IdentityRejected):
            await oauth.verify_id_token(id_token, nonce=None, access_token=Secret(second["access_token"]))


async def test_userinfo_that_does_not_come() -> None:
    """OpenID Connect Core, section 5.3.2."""
    async with scripted() as (provider, oauth):
        token = Secret(provider.issue("alice")["access_token"])
        for answer in (Answer(status=500), Answer(body="[]"), Answer(delivery="cut")):
            provider.script("userinfo", answer)
            with pytest.raises(ProviderUnavailableError):
                await oauth.userinfo(token, subject="alice")
        for change in ({"sub": None}, {"sub": "bob"}, {"sub": 5}):
            provider.script("userinfo", Answer(change=change))
            with pytest.raises(IdentityRejected):
                await oauth.userinfo(token, subject="alice")
        provider.script("userinfo", Answer(change={"iss": "https://other.example"}))
        assert (await oauth.userinfo(token, subject="alice"))["iss"] == provider.issuer


@pytest.mark.parametrize("answer", [Answer(status=503), Answer(delivery="cut"), Answer(delivery="hang")])
async def test_a_revocation_that_fails_is_only_logged(answer: Answer, caplog: pytest.LogCaptureFixture) -> None:
    async with scripted(timeout=1.0) as (provider, oauth):
        provider.script("revoke", answer)
        await oauth.revoke(Secret("hidden-token"), "refresh_token")
        assert "could not be revoked" in caplog.text
        assert "hidden-token" not in caplog.text


async def test_an_exchange_without_id_token() -> None:
    async with scripted() as (provider, oauth):
        provider.script("token", Answer(change={"id_token": None}))
        with pytest.raises(IdentityRejected):
            await sign_in(oauth, "alice")


async def test_a_declined_sign_in_and_a_wished_scope() -> None:
    async with scripted(scopes="openid offline_access profile content:read") as (provider, oauth):
        assert oauth.scopes_for("content:read") == {"openid", "offline_access", "content:read"}
        attempt = SignInAttempt.begin(browser=Secret("b"), return_to="/", scopes=oauth.scopes_for("a"), now=0.0)
        url = await oauth.authorization_url(SignInRequest(attempt=attempt), CALLBACK)
        query = parse_qs(urlsplit(url).query)
        assert query["scope"] == ["a offline_access openid"]
        assert query["prompt"] == ["consent"]
        assert query["code_challenge_method"] == ["S256"]
        provider.authorize_error = "access_denied"
        callback = await come_back(url)
        with pytest.raises(Exception, match="access_denied"):
            await oauth.accept_callback(callback)


@pytest.mark.parametrize(
    "options",
    [
        {"issuer": "http://provider.example"},
        {"client_id": ""},
        {"timeout": 0},
        {"refresh_timeout": float("nan")},
        {"scopes": ""},
        {"scopes": 'a"b'},
    ],
)
def test_options_that_cannot_work(options: dict[str, Any]) -> None:
    known: dict[str, Any] = {"issuer": "https://provider.example", "client_id": "app"}
    with pytest.raises(ConfigurationError):
        OAuthProvider(**(known | options))
