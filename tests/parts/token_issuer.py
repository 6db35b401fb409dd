"""Somebody else's authorization server, as far as a resource server sees it: metadata, keys, JWT access tokens.

async with TokenIssuer() as issuer:
    token = issuer.access_token("alice", audience="https://app.example/mcp", scope="content:read")
"""

from __future__ import annotations

import json
import time
from collections import Counter
from contextlib import AsyncExitStack
from functools import cache
from types import TracebackType
from typing import Any, Self

from joserfc import jws
from joserfc.jwk import ECKey, Key, RSAKey
from tornado.web import Application, RequestHandler

from tests.parts.web_server import listening

__all__ = ["TokenIssuer"]


@cache
def _first_key() -> RSAKey:
    return RSAKey.generate_key(2048, {"kid": "first", "use": "sig", "alg": "RS256"})


class TokenIssuer:
    """The server; what is published may be changed at any time. `served` counts requests by path."""

    def __init__(self) -> None:
        self.issuer = ""
        self.keys: list[Key] = [_first_key()]
        self.metadata: dict[str, Any] = {}
        """Put over what the metadata says."""
        self.down = False
        """Answer 503 to everything."""
        self.served: Counter[str] = Counter()
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        rules = [
            (r"/\.well-known/openid-configuration", _Document, {"owner": self, "document": self._metadata}),
            (r"/jwks", _Document, {"owner": self, "document": self._key_set}),
        ]
        self.issuer = await self._stack.enter_async_context(listening(Application(rules)))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    def rotate(self) -> None:
        """Sign with a new key from now on, and publish no other."""
        self.keys = [ECKey.generate_key("P-256", {"kid": f"after {self.keys[0].kid}"})]

    def claims(self, sub: str = "alice", *, audience: Any, scope: str | None = None, **changes: Any) -> dict[str, Any]:
        """The claims of a good token, 300 s long; `...` for a value takes a claim out."""
        now = time.time()
        claims = {
            "iss": self.issuer,
            "sub": sub,
            "aud": audience,
            "client_id": "assistant",
            "iat": now,
            "exp": now + 300,
            "jti": f"{sub} at {now}",
            "scope": ... if scope is None else scope,
            **changes,
        }
        return {name: value for name, value in claims.items() if value is not ...}

    def access_token(self, sub: str = "alice", *, audience: Any, scope: str | None = None, **changes: Any) -> str:
        """A token of the form of RFC 9068, signed with the newest key; `changes` are claims."""
        return self.sign(self.claims(sub, audience=audience, scope=scope, **changes))

    def sign(self, claims: dict[str, Any], *, key: Key | None = None, **header: Any) -> str:
        """Any claims, under the header of an access token; `...` for a value takes a header out."""
        key = key or self.keys[0]
        algorithm = "RS256" if isinstance(key, RSAKey) else "ES256"
        whole = {"typ": "at+jwt", "alg": algorithm, "kid": key.kid, **header}
        registry = jws.JWSRegistry(algorithms=[algorithm], strict_check_header=False)
        head = {name: value for name, value in whole.items() if value is not ...}
        return jws.serialize_compact(head, json.dumps(claims), key, registry=registry)

    def _metadata(self) -> dict[str, Any]:
        return {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/jwks",
        } | self.metadata

    def _key_set(self) -> dict[str, Any]:
        return {"keys": [key.as_dict(private=False) for key in self.keys]}


class _Document(RequestHandler):
    def initialize(self, owner: TokenIssuer, document: Any) -> None:
        self._owner = owner
        self._document = document

    def get(self) -> None:
        self._owner.served[self.request.path] += 1
        if self._owner.down:
            self.send_error(503)
        else:
            self.finish(self._document())
