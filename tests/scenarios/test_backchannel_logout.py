"""The provider tells that a user has signed out (OpenID Connect Back-Channel Logout 1.0), in one of two processes."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import RSAKey
from motor.motor_asyncio import AsyncIOMotorClient

from tests.parts import provider as oidc
from tests.parts.mongod import ExternalMongo, ReplicaSet
from tests.parts.process import free_port
from tests.parts.scripted_provider import Answer, ScriptedProvider
from tests.scenarios.server import Running, serve
from tornado_sse_auth import Keyring, MongoEventLog, MongoSessionStore, OAuthProvider

PATH = "/auth/backchannel-logout"
EVENT = "http://schemas.openid.net/event/backchannel-logout"
KEYS = Keyring.generate()


@asynccontextmanager
async def process(
    upstream: oidc.Provider | ScriptedProvider, uri: str, name: str, *, port: int = 0
) -> AsyncIterator[Running]:
    """One process's worth of the framework."""
    motor: Any = AsyncIOMotorClient(uri)
    client = OAuthProvider(
        issuer=upstream.issuer, client_id=upstream.client_id, client_secret=upstream.client_secret, scopes="openid"
    )
    try:
        async with serve(
            MongoSessionStore(motor[name], KEYS), client, events=MongoEventLog(motor[name]), port=port
        ) as app:
            yield app
    finally:
        motor.close()


async def signed_in(app: Running, account: str) -> httpx.Cookies:
    done = await oidc.sign_in(f"{app.url}/auth/login", account=account)
    assert done.response.status_code == 302, done.response.text
    cookies = httpx.Cookies()
    cookies.set(app.cookie, done.cookies[app.cookie], domain="127.0.0.1")
    return cookies


def elsewhere(cookies: httpx.Cookies, app: Running, other: Running) -> dict[str, str]:
    """The same browser at the other process, which has another port."""
    return {"Cookie": f"{other.cookie}={cookies[app.cookie]}"}


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unsigned(token: str, header: bytes) -> str:
    """The token's claims below another header."""
    return f"{encoded(header)}.{token.split('.')[1]}"


def confused(token: str, public_key: bytes) -> str:
    """The same claims under HS256 with the public key for its secret (CVE-2016-5431 and many after it)."""
    signed = unsigned(token, b'{"alg":"HS256"}')
    return f"{signed}.{encoded(hmac.digest(public_key, signed.encode(), 'sha256'))}"


async def test_a_real_provider_signs_a_user_out(mongod: ReplicaSet | ExternalMongo, database_name: str) -> None:
    """SEC-50: the provider's own logout token, sent to one process, ends the session's streams in both, and no request
    passes any more; another user's session stays."""
    port = free_port()
    uri = f"http://127.0.0.1:{port}{PATH}"
    with oidc.running(backchannel_logout_uri=uri) as provider:
        async with (
            process(provider, mongod.uri, database_name, port=port) as one,
            process(provider, mongod.uri, database_name) as two,
        ):
            for app in (one, two):
                await provider.add_redirect_uri(f"{app.url}/auth/callback")
            jar, other = await signed_in(one, "leaving"), await signed_in(one, "staying")
            cookie = elsewhere(jar, one, two)
            async with one.stream("/content", cookies=jar) as here, two.stream("/content", headers=cookie) as there:
                await here.next("open")
                await there.next("open")
                assert await provider.logout_account("leaving") == 1
                for stream in (here, there):
                    assert (await stream.next("end")).json() == {"reason": "revoked"}
            for cookies, status in ((jar, 401), (other, 200)):
                async with one.client(cookies=cookies) as client:
                    assert (await client.get("/me")).status_code == status
            async with two.client() as client:
                assert (await client.get("/me", headers=cookie)).status_code == 401


async def test_only_a_genuine_token_that_is_new_signs_anybody_out(
    scripted_provider: ScriptedProvider,
    mongod: ReplicaSet | ExternalMongo,
    database_name: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """SEC-26, SEC-22: whatever else comes is 400, is not stored, changes nothing, and is audited without the token.

    One token sent many times at once to both processes is accepted once.
    """
    caplog.set_level(logging.INFO, logger="tornado_sse_auth.audit")
    scripted_provider.id_token_changes = {"sid": "s1"}

    def claims(**changes: Any) -> dict[str, Any]:
        now = int(time.time())
        good = {
            "iss": scripted_provider.issuer,
            "aud": "app",
            "iat": now,
            "exp": now + 120,
            "jti": "j1",
            "sub": "alice",
        }
        return {n: v for n, v in (good | {"events": {EVENT: {}}} | changes).items() if v is not ...}

    def signed(header: dict[str, Any] | None = None, key: Any = None, **changes: Any) -> str:
        own = scripted_provider.keys[0]
        head = {"alg": "RS256", "kid": own.kid, "typ": "logout+jwt"} | (header or {})
        return jwt.encode(head, claims(**changes), key or own)

    stranger = RSAKey.generate_key(2048, {"kid": scripted_provider.keys[0].kid})
    good = signed()
    refused: list[Any] = [
        {"logout_token": token}
        for token in (
            "",
            "no.token.at-all",
            good[:-4] + "AAAA",
            signed(key=stranger),
            confused(good, scripted_provider.keys[0].as_pem(private=False)),
            unsigned(good, b'{"alg":"none"}') + ".",
            signed({"typ": "at+jwt"}),
            signed({"typ": "secevent+jwt"}),
            signed(nonce="n"),
            signed(events=...),
            signed(iss="https://other.example"),
            signed(aud="other"),
            signed(jti=...),
            signed(sub=...),
            signed(iat=int(time.time()) - 3600),
            scripted_provider.sign(claims(events=..., nonce="n")),
        )
    ]
    refused += [{}, {"logout_token": [good, good]}, {"logout_token": "\u00e4"}]
    async with (
        process(scripted_provider, mongod.uri, database_name) as one,
        process(scripted_provider, mongod.uri, database_name) as two,
    ):
        jar = await signed_in(one, "alice")
        async with one.client(cookies=jar) as client, two.client() as unknown:
            for form in refused:
                answer = await unknown.post(PATH, data=form)
                assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request"), form
                assert answer.headers["Cache-Control"] == "no-store"
                assert "WWW-Authenticate" not in answer.headers
            assert (await unknown.post(f"{PATH}?logout_token={good}")).status_code == 400
            assert (await unknown.get(PATH)).status_code == 405
            assert (await unknown.post(PATH, data={"logout_token": good}, headers={"Host": "evil"})).status_code == 421
            assert (await unknown.post(PATH, content=b"x" * 70_000)).status_code == 413
            assert (await client.get("/me")).status_code == 200

            # The provider's other session of the same user, and a session of another user under this id: not this one.
            for change in ({"sid": "s2"}, {"sid": "s1", "sub": "bob"}):
                accepted = await unknown.post(PATH, data={"logout_token": signed(jti=f"other {change}", **change)})
                assert (accepted.status_code, accepted.content) == (200, b"")
            assert (await client.get("/me")).status_code == 200

            calls = [sender.post(PATH, data={"logout_token": good}) for sender in (client, unknown) * 5]
            statuses = sorted([answer.status_code for answer in await asyncio.gather(*calls)])
            assert statuses == [200, *[400] * 9]
            assert (await client.get("/me")).status_code == 401

            scripted_provider.id_token_changes = {"sid": "s3"}
            back = await signed_in(one, "alice")
            assert (await unknown.post(PATH, data={"logout_token": good})).status_code == 400
            async with one.client(cookies=back) as again:
                assert (await again.get("/me")).status_code == 200
                by_sid = signed({"typ": "application/logout+jwt"}, jti="j2", sub=..., sid="s3")
                assert (await unknown.post(PATH, data={"logout_token": by_sid})).status_code == 200
                assert (await again.get("/me")).status_code == 401
    lines = [json.loads(record.message) for record in caplog.records if record.name == "tornado_sse_auth.audit"]
    outs = [line for line in lines if line["event"] == "sign-out"]
    assert sum(line["outcome"] == "success" for line in outs) == 4
    assert all(line["reason"] for line in outs)
    ended = [line for line in lines if line["event"] == "revocation"]
    assert {line["reason"] for line in ended} == {"signed out at the provider"}
    assert {line["user_id"] for line in ended} == {f"{scripted_provider.issuer}|alice"}
    assert good not in caplog.text


async def test_a_key_set_that_cannot_be_had_is_the_providers_fault_not_the_tokens(
    scripted_provider: ScriptedProvider, mongod: ReplicaSet | ExternalMongo, database_name: str
) -> None:
    """503 with Retry-After: the same token counts when it is presented again."""
    now = int(time.time())
    token = scripted_provider.sign(
        {"iss": scripted_provider.issuer, "aud": "app", "iat": now, "exp": now + 120, "jti": "j", "sub": "a"}
        | {"events": {EVENT: {}}}
    )
    scripted_provider.script("jwks", *[Answer(status=500, body="no")] * 100)
    async with process(scripted_provider, mongod.uri, database_name) as app, app.client() as client:
        answer = await client.post(PATH, data={"logout_token": token})
        assert (answer.status_code, answer.json()["error"]) == (503, "provider_unavailable")
        assert int(answer.headers["Retry-After"]) >= 1
        scripted_provider.unscript("jwks")
        await asyncio.sleep(int(answer.headers["Retry-After"]))
        assert (await client.post(PATH, data={"logout_token": token})).status_code == 200


@pytest.mark.parametrize(
    ("named", "sid"),
    [({"sid": "s1"}, "s1"), ({"sub": "alice"}, None), ({"sub": "alice"}, "s1"), ({"sub": "alice", "sid": "s1"}, None)],
    ids=["by session", "by user", "by user, of all sessions", "by both, where ID tokens name no session"],
)
async def test_a_sign_in_that_was_under_way_comes_too_late(
    scripted_provider: ScriptedProvider,
    mongod: ReplicaSet | ExternalMongo,
    database_name: str,
    named: dict[str, str],
    sid: str | None,
) -> None:
    """SEC-50: the provider signs its user out between the tokens and our storing them; another user's sign-in goes on,
    and so does a later one of the same user, who has another session there."""
    now = int(time.time())
    logout = {"iss": scripted_provider.issuer, "aud": "app", "iat": now, "exp": now + 120, "jti": "j"}
    token = scripted_provider.sign({**logout, **named, "events": {EVENT: {}}})
    scripted_provider.id_token_changes = {"sid": sid}
    gate = asyncio.Event()
    scripted_provider.script("userinfo", Answer(gate=gate))
    async with process(scripted_provider, mongod.uri, database_name) as app, app.client() as provider:
        late = asyncio.create_task(oidc.sign_in(f"{app.url}/auth/login", account="alice"))
        await scripted_provider.wait_for_calls("userinfo")
        assert (await provider.post(PATH, data={"logout_token": token})).status_code == 200
        gate.set()
        done = await late
        assert done.response.status_code == 400
        assert app.cookie not in done.cookies
        assert await app.auth.sessions.sessions_of(f"{scripted_provider.issuer}|alice") == []
        scripted_provider.id_token_changes = {"sid": sid and "s2"}
        for account in ("alice", "bob"):
            async with app.client(cookies=await signed_in(app, account)) as client:
                assert (await client.get("/me")).status_code == 200


async def test_who_signs_out_ends_no_sign_in_of_others(
    scripted_provider: ScriptedProvider, mongod: ReplicaSet | ExternalMongo, database_name: str
) -> None:
    """SEC-50: neither another user's, nor one of the same user in another session of the provider's."""
    now = int(time.time())
    logout = {"iss": scripted_provider.issuer, "aud": "app", "iat": now, "exp": now + 120}
    gate = asyncio.Event()
    scripted_provider.script("userinfo", *[Answer(gate=gate)] * 2)
    scripted_provider.id_token_changes = {"sid": "s2"}
    async with process(scripted_provider, mongod.uri, database_name) as app, app.client() as provider:
        under_way = [
            asyncio.create_task(oidc.sign_in(f"{app.url}/auth/login", account=account)) for account in ("alice", "bob")
        ]
        await scripted_provider.wait_for_calls("userinfo", 2)
        for number, named in enumerate(({"sub": "carol"}, {"sub": "alice", "sid": "s1"})):
            claims = {**logout, **named, "jti": str(number), "events": {EVENT: {}}}
            answer = await provider.post(PATH, data={"logout_token": scripted_provider.sign(claims)})
            assert answer.status_code == 200
        gate.set()
        for done in await asyncio.gather(*under_way):
            assert done.response.status_code == 302
            assert app.cookie in done.cookies


async def test_a_session_that_names_none_of_the_providers_goes_by_its_user(
    scripted_provider: ScriptedProvider, mongod: ReplicaSet | ExternalMongo, database_name: str
) -> None:
    """Providers that put no `sid` into ID tokens, and one into logout tokens all the same."""
    now = int(time.time())
    logout = {"iss": scripted_provider.issuer, "aud": "app", "iat": now, "exp": now + 120, "jti": "j"}
    token = scripted_provider.sign({**logout, "sub": "alice", "sid": "s1", "events": {EVENT: {}}})
    async with process(scripted_provider, mongod.uri, database_name) as app, app.client() as provider:
        alice, bob = await signed_in(app, "alice"), await signed_in(app, "bob")
        assert (await provider.post(PATH, data={"logout_token": token})).status_code == 200
        for cookies, status in ((alice, 401), (bob, 200)):
            async with app.client(cookies=cookies) as client:
                assert (await client.get("/me")).status_code == status
