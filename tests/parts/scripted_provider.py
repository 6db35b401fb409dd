"""A scripted OpenID provider, for the faults that a real one cannot be made to have.

    async with ScriptedProvider() as provider:
        provider.script("token", Answer(status=503, headers={"Retry-After": "2"}), Answer(delivery="cut"))

It signs real ID tokens, counts the uses of each refresh token, and revokes the family of one that is used twice.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import secrets
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from functools import cache
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote

from joserfc import jwt
from joserfc.jwk import RSAKey
from tornado.web import Application

from tests.parts.scripted_answers import Answer, AuthorizeHandler, Call, Endpoint, EndpointHandler
from tests.parts.web_server import listening

__all__ = ["Answer", "Call", "ScriptedProvider"]


@dataclass(kw_only=True)
class _Family:
    """All refresh tokens that come from one sign-in."""

    sub: str
    scope: str
    nonce: str | None
    revoked: bool = False


@cache
def _shared_key() -> RSAKey:
    # Making a key takes a tenth of a second; only tests that rotate need another.
    return RSAKey.generate_key(2048, {"kid": "first", "use": "sig", "alg": "RS256"})


class ScriptedProvider:
    """The provider; its public attributes may be changed at any time and hold for what follows."""

    client_id = "app"
    client_secret = "app-secret-app-secret-app-secret"

    def __init__(
        self,
        *,
        expires_in: Any = 300,
        rotates: bool = True,
        strict: bool = True,
        scope_in_answer: bool = True,
    ) -> None:
        """`strict`: the second use of a refresh token revokes its family; otherwise it is answered like the first."""
        self.expires_in = expires_in
        self.rotates = rotates
        self.strict = strict
        self.scope_in_answer = scope_in_answer
        self.refresh_subject: str | None = None
        """The `sub` of ID tokens in refresh answers, where it is not the account's."""
        self.accounts: dict[str, dict[str, Any]] = {}
        """More claims of an account, for ID token and userinfo."""
        self.authorize_error: str | None = None
        """An error with which the authorization endpoint sends everybody back."""
        self.id_token_changes: dict[str, Any] = {}
        """Claims that replace those of each ID token; None takes one out."""
        self.encode_id_token: Callable[[dict[str, Any]], str] = self.sign
        """How ID tokens are made of their claims."""
        self.keys = [_shared_key()]
        """The key set; the first one signs."""
        self.metadata: dict[str, Any] = {}
        self.issuer = ""
        self.uses: Counter[str] = Counter()
        """How often each refresh token had its effect or was refused, whatever was answered."""
        self.revoked_families = 0
        self._calls: list[Call] = []
        self._scripts: dict[str, deque[Answer]] = {}
        self._refresh_scripts: dict[str, deque[Answer]] = {}
        self._codes: dict[str, tuple[_Family, str, str]] = {}
        self._refresh_tokens: dict[str, _Family] = {}
        self._access_tokens: dict[str, _Family] = {}
        self._waiting: set[asyncio.Event] = set()
        self._serving = AsyncExitStack()

    async def __aenter__(self) -> Self:
        paths: dict[Endpoint, str] = {
            "discovery": "/.well-known/openid-configuration",
            "jwks": "/jwks",
            "token": "/token",
            "userinfo": "/userinfo",
            "revoke": "/revoke",
        }
        routes = [(path, EndpointHandler, {"endpoint": name, "provider": self}) for name, path in paths.items()]
        application = Application([*routes, ("/authorize", AuthorizeHandler, {"provider": self})])
        self.issuer = await self._serving.enter_async_context(listening(application))
        self.metadata = {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}{paths['token']}",
            "userinfo_endpoint": f"{self.issuer}{paths['userinfo']}",
            "revocation_endpoint": f"{self.issuer}{paths['revoke']}",
            "jwks_uri": f"{self.issuer}{paths['jwks']}",
            "response_types_supported": ["code"],
            "grant_types_supported": ["authorization_code", "refresh_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
            "code_challenge_methods_supported": ["S256"],
            "authorization_response_iss_parameter_supported": True,
        }
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._serving.aclose()

    def script(self, endpoint: Endpoint, *answers: Answer) -> None:
        """Answer the next calls of an endpoint so, in order; after that, as an ordinary provider."""
        self._scripts.setdefault(endpoint, deque()).extend(answers)

    def unscript(self, endpoint: Endpoint) -> None:
        """Forget what was scripted: an ordinary provider from the next call on."""
        self._scripts.pop(endpoint, None)

    def script_refresh(self, sub: str, *answers: Answer) -> None:
        """Answer the next refreshes of an account so, in order, whatever else is asked meanwhile."""
        self._refresh_scripts.setdefault(sub, deque()).extend(answers)

    def refreshes(self, sub: str) -> list[Call]:
        """The refreshes so far of an account."""
        return [call for call in self.calls("token", grant_type="refresh_token") if self._account(call) == sub]

    def calls(self, endpoint: Endpoint, **form: str) -> list[Call]:
        """The calls so far of an endpoint whose form has these fields: `calls("token", grant_type="refresh_token")`."""
        return [call for call in self._calls if call.endpoint == endpoint and form.items() <= call.form.items()]

    async def wait_for_calls(
        self, endpoint: Endpoint, count: int = 1, *, timeout: float = 10.0, **form: str
    ) -> list[Call]:
        """Those calls, once there are `count`. Raises AssertionError after `timeout` seconds."""
        arrived = asyncio.Event()
        self._waiting.add(arrived)
        try:
            async with asyncio.timeout(timeout):
                while len(found := self.calls(endpoint, **form)) < count:
                    arrived.clear()
                    await arrived.wait()
        except TimeoutError:
            raise AssertionError(f"{len(found)} of {count} calls of {endpoint} within {timeout} s") from None
        finally:
            self._waiting.discard(arrived)
        return found

    def rotate_keys(self, *, keep: bool = True) -> None:
        """Sign with a new key from now on; the old ones stay in the key set or not."""
        key = RSAKey.generate_key(2048, {"kid": secrets.token_hex(4), "use": "sig", "alg": "RS256"})
        self.keys = [key, *(self.keys if keep else [])]

    def sign(self, claims: dict[str, Any], **header: Any) -> str:
        """A JWT of these claims by the first key."""
        key = self.keys[0]
        return jwt.encode({"alg": "RS256", "kid": key.kid, **header}, claims, key)

    def issue(self, sub: str, scope: str = "openid offline_access profile") -> dict[str, Any]:
        """A token answer for an account, without a sign-in."""
        return self._tokens(_Family(sub=sub, scope=scope, nonce=None), sub)

    # What follows is for the handlers below.

    def arrived(self, call: Call) -> Answer:
        """Note a call; gives its answer."""
        if call.form.get("grant_type", "").startswith("urn:"):
            call = replace(call, endpoint="check")  # the health check, which asks for a grant that does not exist
        self._calls.append(call)
        for event in self._waiting:
            event.set()
        script = self._refresh_scripts.get(self._account(call)) or self._scripts.get(call.endpoint)
        return script.popleft() if script else Answer()

    def _account(self, call: Call) -> str:
        family = self._refresh_tokens.get(call.form.get("refresh_token", ""))
        return family.sub if family is not None else ""

    def new_code(self, query: Mapping[str, str]) -> str:
        """A code for whom `login_hint` names."""
        code = secrets.token_urlsafe(24)
        family = _Family(
            sub=query.get("login_hint", "alice"), scope=query.get("scope", "openid"), nonce=query.get("nonce")
        )
        self._codes[code] = family, query.get("redirect_uri", ""), query.get("code_challenge", "")
        return code

    def act(self, call: Call) -> tuple[int, dict[str, Any]]:
        """What an ordinary provider does and answers: status and JSON."""
        if call.endpoint == "discovery":
            return 200, self.metadata
        if call.endpoint == "jwks":
            return 200, {"keys": [key.as_dict(private=False) for key in self.keys]}
        if call.endpoint == "userinfo":
            family = self._access_tokens.get(call.headers.get("Authorization", "").removeprefix("Bearer "))
            if family is None or family.revoked:
                return 401, {"error": "invalid_token"}
            return 200, {"sub": family.sub, **self.accounts.get(family.sub, {})}
        if not self._client_is_known(call):
            return 401, {"error": "invalid_client"}
        if call.endpoint == "revoke":
            self._revoke(call.form.get("token", ""))
            return 200, {}
        if call.form.get("grant_type") == "authorization_code":
            return self._exchange_code(call.form)
        if call.form.get("grant_type") == "refresh_token":
            return self._refresh(call.form.get("refresh_token", ""))
        return 400, {"error": "unsupported_grant_type"}

    def _client_is_known(self, call: Call) -> bool:
        basic = call.headers.get("Authorization", "")
        if basic.startswith("Basic "):
            name, _, secret = base64.b64decode(basic.removeprefix("Basic ")).decode().partition(":")
            return (unquote(name), unquote(secret)) == (self.client_id, self.client_secret)
        return (call.form.get("client_id"), call.form.get("client_secret")) == (self.client_id, self.client_secret)

    def _exchange_code(self, form: Mapping[str, str]) -> tuple[int, dict[str, Any]]:
        known = self._codes.pop(form.get("code", ""), None)
        if known is None:
            return 400, {"error": "invalid_grant"}
        family, redirect_uri, challenge = known
        if form.get("redirect_uri") != redirect_uri or _s256(form.get("code_verifier", "")) != challenge:
            return 400, {"error": "invalid_grant"}
        return 200, self._tokens(family, family.sub)

    def _refresh(self, token: str) -> tuple[int, dict[str, Any]]:
        family = self._refresh_tokens.get(token)
        self.uses[token] += 1
        if family is None or family.revoked:
            return 400, {"error": "invalid_grant"}
        if self.rotates and self.strict and self.uses[token] > 1:
            family.revoked = True
            self.revoked_families += 1
            return 400, {"error": "invalid_grant"}
        answer = self._tokens(family, self.refresh_subject or family.sub)
        if not self.rotates:
            del answer["refresh_token"]
        return 200, answer

    def _revoke(self, token: str) -> None:
        family = self._refresh_tokens.get(token) or self._access_tokens.get(token)
        if family is not None:
            family.revoked = True

    def _tokens(self, family: _Family, subject: str) -> dict[str, Any]:
        access, refresh = secrets.token_urlsafe(24), secrets.token_urlsafe(24)
        self._access_tokens[access] = self._refresh_tokens[refresh] = family
        answer: dict[str, Any] = {"access_token": access, "token_type": "Bearer", "refresh_token": refresh}
        if self.expires_in is not None:
            answer["expires_in"] = self.expires_in
        if self.scope_in_answer:
            answer["scope"] = family.scope
        if "openid" in family.scope.split():
            answer["id_token"] = self.encode_id_token(self._id_token_claims(family, subject, access))
        return answer

    def _id_token_claims(self, family: _Family, subject: str, access: str) -> dict[str, Any]:
        now = int(time.time())
        claims = {
            "iss": self.issuer,
            "sub": subject,
            "aud": self.client_id,
            "iat": now,
            "exp": now + 3600,
            "nonce": family.nonce,
            "at_hash": _encoded(hashlib.sha256(access.encode()).digest()[:16]),
            **self.accounts.get(subject, {}),
            **self.id_token_changes,
        }
        return {name: value for name, value in claims.items() if value is not None}


def _encoded(digest: bytes) -> str:
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def _s256(verifier: str) -> str:
    return _encoded(hashlib.sha256(verifier.encode()).digest())
