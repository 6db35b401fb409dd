"""Bearers of somebody else's authorization server: which open what, and for how long."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from joserfc.jwk import RSAKey
from tornado.netutil import bind_sockets
from tornado.web import RequestHandler

from tests.parts.token_issuer import TokenIssuer
from tests.scenarios.server import Running, serve
from tornado_sse_auth import (
    ConfigurationError,
    JWTBearerVerifier,
    MemorySessionStore,
    OAuthProvider,
    Session,
    SSEAuthenticationMiddleware,
    SSEAuthMixin,
    StoreUnavailableError,
)
from tornado_sse_auth.stores.base import ChangeKind, SessionChange
from tornado_sse_auth.testing import ManualClock

AUDIENCE = "https://app.example/mcp"


class Unreachable(MemorySessionStore):
    """A store that answers no question about sessions."""

    async def find_by_credential(self, digest: bytes) -> Session | None:
        raise StoreUnavailableError(reason="asked")

    async def find(self, session_id: str) -> Session | None:
        raise StoreUnavailableError(reason="asked")


@dataclass(frozen=True)
class Parts:
    """Somebody else's authorization server, and ours, which takes its tokens."""

    issuer: TokenIssuer
    app: Running

    def token(self, **more: Any) -> str:
        return self.issuer.access_token(**{"audience": AUDIENCE, "scope": "prices:read"} | more)

    async def get(self, token: str, path: str = "/me", **headers: str) -> httpx.Response:
        async with self.app.client() as client:
            return await client.get(path, headers={"Authorization": f"Bearer {token}", **headers})


@asynccontextmanager
async def parts(store: MemorySessionStore | None = None, **options: Any) -> AsyncIterator[Parts]:
    async with TokenIssuer() as issuer:
        verifier = JWTBearerVerifier(issuer=issuer.issuer, audience=AUDIENCE)
        async with serve(store or Unreachable(), bearer_verifiers=[verifier], **options) as app:
            yield Parts(issuer, app)


async def test_the_user_comes_from_the_token_and_no_store_is_asked() -> None:
    async with parts() as it:
        claims = {"subscription_level": "pro", "roles": ["trade"]}
        good = it.token(scope="prices:read a:read", **claims)
        answer = await it.get(good)
        assert answer.status_code == 200
        me = answer.json()
        assert me["user_id"] == f"{it.issuer.issuer}|alice"
        assert me["scopes"] == ["a:read", "prices:read"]
        assert (await it.get(good)).json() == me
        assert it.app.metrics.counters["session.validate.hit"] == 1
        assert (await it.get(good, "/demand/subscription")).status_code == 200
        assert (await it.get(good, "/demand/permission")).status_code == 200
        lacking = await it.get(good, "/demand/scope")
        assert lacking.status_code == 403
        assert 'scope="a:read b:read"' in lacking.headers["WWW-Authenticate"]
        # Two tokens of one user are two sessions: the end of one is not the end of the other.
        assert (await it.get(it.token(jti="other"))).json()["session_id"] != me["session_id"]
        several = it.token(audience=["https://other.example", AUDIENCE])
        assert (await it.get(several)).status_code == 200
        async with it.app.client() as client:
            metadata = (await client.get("/.well-known/oauth-protected-resource")).json()
        assert metadata["authorization_servers"] == [it.issuer.issuer]


async def test_equal_subjects_of_two_issuers_are_two_users() -> None:
    """SEC-03, SEC-27: whose subject it is, the signature says, and not the token."""
    async with TokenIssuer() as one, TokenIssuer() as two:
        two.rotate()
        verifiers = [JWTBearerVerifier(issuer=it.issuer, audience=AUDIENCE) for it in (one, two)]
        async with serve(Unreachable(), bearer_verifiers=verifiers) as app:
            for issuer, other in ((one, two), (two, one)):
                it = Parts(issuer, app)
                assert (await it.get(it.token())).json()["user_id"] == f"{issuer.issuer}|alice"
                claims = other.claims(audience=AUDIENCE)
                for kid in (issuer.keys[0].kid, other.keys[0].kid):
                    answer = await it.get(issuer.sign(claims, kid=kid))
                    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_token")


class Resource(SSEAuthMixin, RequestHandler):
    """A protected resource of its own."""

    resource = "/mcp"

    def get(self) -> None:
        self.write({"user_id": self.current_user.user_id})


async def test_a_token_for_one_resource_opens_no_other() -> None:
    """SEC-16: by its path below the public URL; the server as a whole is every resource."""
    async with TokenIssuer() as issuer:
        sockets = bind_sockets(0, "127.0.0.1")
        port = sockets[0].getsockname()[1]
        sockets[0].close()
        url = f"http://127.0.0.1:{port}"
        verifier = JWTBearerVerifier(issuer=issuer.issuer, audience=[url, f"{url}/mcp", f"{url}/sse"])
        async with serve(Unreachable(), bearer_verifiers=[verifier], port=port, handlers=[(r"/mcp", Resource)]) as app:
            it = Parts(issuer, app)
            for audience, opens in (
                (f"{url}/mcp", {"/mcp"}),
                (f"{url}/sse", set()),
                ([f"{url}/mcp", f"{url}/sse"], {"/mcp"}),
                (url, {"/mcp", "/me"}),
                ([url, "https://other.example"], {"/mcp", "/me"}),
            ):
                for path in ("/mcp", "/me"):
                    answer = await it.get(it.token(audience=audience), path)
                    assert answer.status_code == (200 if path in opens else 401), (audience, path)
                    if answer.status_code == 401:
                        assert answer.json()["error"] == "invalid_token"


def encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unsigned(issuer: TokenIssuer) -> str:
    header = {"alg": "none", "typ": "at+jwt", "kid": issuer.keys[0].kid}
    claims = issuer.claims(audience=AUDIENCE)
    return f"{encode(json.dumps(header).encode())}.{encode(json.dumps(claims).encode())}.AAAA"


def signed_with_the_public_key(issuer: TokenIssuer) -> str:
    header = {"alg": "HS256", "typ": "at+jwt", "kid": issuer.keys[0].kid}
    text = f"{encode(json.dumps(header).encode())}.{encode(json.dumps(issuer.claims(audience=AUDIENCE)).encode())}"
    key = issuer.keys[0]
    assert isinstance(key, RSAKey)
    return f"{text}.{encode(hmac.digest(key.as_pem(private=False), text.encode(), 'sha256'))}"


def altered(issuer: TokenIssuer) -> str:
    head, _, signature = issuer.access_token(audience=AUDIENCE).split(".")
    return f"{head}.{encode(json.dumps(issuer.claims('bob', audience=AUDIENCE)).encode())}.{signature}"


def claim(**changes: Any) -> Callable[[TokenIssuer], str]:
    return lambda issuer: issuer.access_token(**{"audience": AUDIENCE} | changes)


def header(**changes: Any) -> Callable[[TokenIssuer], str]:
    return lambda issuer: issuer.sign(issuer.claims(audience=AUDIENCE), **changes)


REFUSED: dict[str, Callable[[TokenIssuer], str]] = {
    "another audience": claim(audience="https://app.example"),
    "another audience by a slash": claim(audience=AUDIENCE + "/"),
    "no audience": claim(audience=...),
    "an audience that is no text": claim(audience=[AUDIENCE, 5]),
    "another issuer": claim(iss="https://other.example"),
    "no issuer": claim(iss=...),
    "no subject": claim(sub=...),
    "no client": claim(client_id=...),
    "a scope that is no text": claim(scope=["prices:read"]),
    "no expiry": claim(exp=...),
    "no time of issue": claim(iat=...),
    "expired": claim(exp=time.time() - 6),
    "not yet": claim(nbf=time.time() + 3600),
    "issued in the future": claim(iat=time.time() + 3600),
    "bound to a key": claim(cnf={"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}),
    "an ID token": header(typ="JWT"),
    "of no type": header(typ=...),
    "a logout token": header(typ="logout+jwt"),
    "an unknown key": header(kid="unknown"),
    "a key of its own": lambda issuer: header(jwk=issuer.keys[0].as_dict(private=False))(issuer),
    "no signature": unsigned,
    "signed with the public key": signed_with_the_public_key,
    "altered": altered,
    "signed by somebody else": lambda issuer: header(key=RSAKey.generate_key(2048, {"kid": issuer.keys[0].kid or ""}))(
        issuer
    ),
    "no token at all": lambda _: "a.b.c",
    "encrypted": lambda _: "e30.e30.e30.e30.e30",
    "opaque": lambda _: "opaque",
}


async def test_refused(caplog: pytest.LogCaptureFixture) -> None:
    """SEC-16, SEC-26: each is 401 and final, whatever else the request carries, and shows up nowhere."""
    caplog.set_level(logging.DEBUG)
    store = MemorySessionStore()
    async with parts(store) as it:
        _, cookie = await it.app.auth.sessions.create(user_id="alice")
        assert (await it.get(it.token())).status_code == 200
        for name, make in REFUSED.items():
            token = make(it.issuer)
            answer = await it.get(token, Cookie=f"{it.app.cookie}={cookie.reveal()}")
            assert (answer.status_code, answer.json()["error"]) == (401, "invalid_token"), name
            assert 'error="invalid_token"' in answer.headers["WWW-Authenticate"], name
            assert len(token) < 10 or token not in answer.text + caplog.text, name
        assert it.app.metrics.counters["session.validate.rejected"] == len(REFUSED)
        # An unknown key was asked for again, once.
        assert it.issuer.served["/jwks"] <= 2


async def test_keys_rotate() -> None:
    """SEC-27: a new key is fetched when a token names it; invented names are no further reason to ask."""
    async with parts() as it:
        before = it.token()
        assert (await it.get(before)).status_code == 200
        it.issuer.rotate()
        assert (await it.get(it.token())).status_code == 200
        for number in range(20):
            await it.get(it.issuer.sign(it.issuer.claims(audience=AUDIENCE), kid=f"invented {number}"))
        assert it.issuer.served["/jwks"] == 2
        assert (await it.get(it.token(sub="bob"))).status_code == 200


async def test_an_authorization_server_that_is_away_is_no_reason_to_sign_in() -> None:
    """SEC-27: 503, and while its keys have never been read, tokens with invented keys are no request each."""
    clock = ManualClock(time.time())
    async with TokenIssuer() as issuer:
        issuer.down = True
        verifier = JWTBearerVerifier(issuer=issuer.issuer, audience=AUDIENCE, clock=clock)
        async with serve(Unreachable(), bearer_verifiers=[verifier]) as app:
            it = Parts(issuer, app)
            clock.advance(3)  # after the start, which has asked, too
            before = issuer.served.total()
            for number in range(20):
                forged = issuer.sign(issuer.claims(f"user {number}", audience=AUDIENCE), kid=f"invented {number}")
                answer = await it.get(forged)
                assert (answer.status_code, answer.json()["error"]) == (503, "provider_unavailable")
                assert int(answer.headers["Retry-After"]) > 0
            assert issuer.served.total() - before == 1
            token = it.token()
            issuer.down = False
            clock.advance(2)
            assert (await it.get(token)).status_code == 200
            issuer.down = True  # keys that are known need nobody
            assert (await it.get(it.token(sub="bob"))).status_code == 200


async def test_a_stream_ends_with_its_token() -> None:
    """SEC-49: at `exp`, and not because a store that never had it no longer has it."""
    async with parts(MemorySessionStore()) as it:
        ends = time.time() + 2
        async with (
            it.app.stream("/prices", bearer=it.token(exp=ends)) as short,
            it.app.stream("/prices", bearer=it.token(sub="bob")) as long,
        ):
            assert (await short.next("open")).json()["expires_at"] == int(ends)
            await long.next("open")
            it.app.auth.sessions.watch._on_change(SessionChange(ChangeKind.LOST))
            await it.app.auth.events.publish("prices", {"price": 1})
            assert (await short.next("message")).json() == {"price": 1}
            assert (await short.next("end")).json() == {"reason": "session_expired"}
            assert ends <= time.time()
            assert it.app.metrics.counters["stream.closed.session_expired"] == 1
            await it.app.auth.events.publish("prices", {"price": 2})
            await long.next("message")
            assert (await long.next("message")).json() == {"price": 2}
            assert it.app.auth.refresh_manager.scheduled == 0
        refused = await it.get(it.token(exp=time.time() - 1), "/prices")
        # Within the leeway a request would pass, but a stream has no time left.
        assert (refused.status_code, refused.json()["error"]) == (401, "invalid_token")


async def test_what_such_a_bearer_cannot_do(scripted_provider: Any) -> None:
    provider = OAuthProvider(
        issuer=scripted_provider.issuer,
        client_id=scripted_provider.client_id,
        client_secret=scripted_provider.client_secret,
    )
    store = MemorySessionStore()
    async with TokenIssuer() as issuer:
        verifier = JWTBearerVerifier(issuer=issuer.issuer, audience=AUDIENCE)
        async with serve(store, provider, bearer_verifiers=[verifier]) as app:
            it = Parts(issuer, app)
            token = it.token()
            session, _ = await app.auth.sessions.create(user_id=f"{issuer.issuer}|alice")
            async with app.client(headers={"Authorization": f"Bearer {token}"}) as client:
                upstream = await client.get("/upstream")
                assert (upstream.status_code, upstream.json()["error"]) == (403, "insufficient_permission")
                for method, path in (
                    ("GET", "/auth/sessions"),
                    ("DELETE", f"/auth/sessions/{session.id}"),
                    ("POST", "/auth/logout"),
                    ("POST", "/auth/token"),
                ):
                    answer = await client.request(method, path, json={"everywhere": True, "grant": "session"})
                    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_token"), path
            assert await app.auth.sessions.find(session.id) is not None
            assert scripted_provider.calls("token") == []


async def test_metadata_of_another_issuer_stops_the_start() -> None:
    """SEC-28."""
    async with TokenIssuer() as issuer:
        for wrong in (
            {"issuer": "https://other.example"},
            {"jwks_uri": "http://keys.example/jwks"},
            {"jwks_uri": None},
        ):
            issuer.metadata = wrong
            verifier = JWTBearerVerifier(issuer=issuer.issuer, audience=AUDIENCE)
            auth = SSEAuthenticationMiddleware(
                MemorySessionStore(), public_url="https://app.example", bearer_verifiers=[verifier]
            )
            with pytest.raises(ConfigurationError):
                await auth.start()
        issuer.metadata = {"issuer": "https://other.example"}
        pinned = JWTBearerVerifier(issuer=issuer.issuer, audience=AUDIENCE, jwks_uri=f"{issuer.issuer}/jwks")
        async with serve(Unreachable(), bearer_verifiers=[pinned]) as app:
            assert (await Parts(issuer, app).get(issuer.access_token(audience=AUDIENCE))).status_code == 200


@pytest.mark.parametrize(
    "wrong",
    [
        {"issuer": "http://id.example"},
        {"issuer": "https://id.example/a|b"},
        {"audience": ""},
        {"audience": []},
        {"algorithms": ["HS256"]},
        {"algorithms": ["none", "RS256"]},
        {"algorithms": []},
        {"leeway": 3600},
        {"timeout": 0},
        {"jwks_uri": "http://keys.example/jwks"},
    ],
)
async def test_what_cannot_work_is_refused_when_it_is_made(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        JWTBearerVerifier(**{"issuer": "https://id.example", "audience": AUDIENCE} | wrong)


async def test_fifty_requests_at_once_need_the_keys_once() -> None:
    async with parts() as it, it.app.client() as client:
        tokens = [it.token(sub=f"user {number}") for number in range(50)]
        answers = await asyncio.gather(
            *(client.get("/me", headers={"Authorization": f"Bearer {token}"}) for token in tokens)
        )
        assert {answer.status_code for answer in answers} == {200}
        assert len({answer.json()["user_id"] for answer in answers}) == 50
        assert it.issuer.served["/jwks"] == 1
