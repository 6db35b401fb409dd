"""What the demo provider remembers: pending requests, codes, and families of tokens. In memory, bounded, pure."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from tornado_sse_auth import Clock

__all__ = ["AuthorizationRequest", "Grants", "InvalidGrant", "IssuedTokens"]

REQUEST_TTL = 600.0
CODE_TTL = 60.0
FAMILY_TTL = 86_400.0  # since its last refresh
MOST_REQUESTS = 1_000  # each as long as a request line may be
MOST_FAMILIES = 10_000

V = TypeVar("V")


class InvalidGrant(Exception):  # noqa: N818 - the name of the OAuth error
    """The code or refresh token is unknown, used, expired, revoked, or somebody else's (RFC 6749, section 5.2)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorizationRequest:
    """A checked request of the authorization endpoint."""

    redirect_uri: str
    scopes: frozenset[str]
    challenge: str
    state: str | None
    nonce: str | None


@dataclass(slots=True, eq=False)
class _Family:
    """All tokens that come from one sign-in. `current` is the one refresh token that may be used."""

    subject: str
    scopes: frozenset[str]
    sid: str = field(default_factory=lambda: secrets.token_hex(8))
    current: str | None = None
    redeemed: bool = False
    revoked: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedTokens:
    """What the token endpoint answers with. `refresh_token` is None without `offline_access`, `nonce` on a refresh
    (OpenID Connect Core, section 12.2)."""

    access_token: str
    refresh_token: str | None
    subject: str
    scopes: frozenset[str]
    nonce: str | None
    sid: str


class _Kept(Generic[V]):
    """A mapping whose entries expire `ttl` seconds after their last `renew`; beyond `at_most` the oldest goes."""

    def __init__(self, ttl: float, at_most: int, clock: Clock) -> None:
        self._ttl = ttl
        self._at_most = at_most
        self._clock = clock
        self._entries: OrderedDict[str, tuple[float, V]] = OrderedDict()

    def put(self, value: V) -> str:
        """Keep `value` under a new unguessable key."""
        key = secrets.token_urlsafe(32)
        self._entries[key] = (0.0, value)
        self.renew(key)
        while len(self._entries) > self._at_most or next(iter(self._entries.values()))[0] <= self._clock.monotonic():
            self._entries.popitem(last=False)
        return key

    def renew(self, key: str) -> None:
        """Let the life of a kept value begin anew. The order of entries stays that of their expiry."""
        self._entries[key] = (self._clock.monotonic() + self._ttl, self._entries[key][1])
        self._entries.move_to_end(key)

    def get(self, key: str) -> V | None:
        """The value, if it is there and has not expired."""
        until, value = self._entries.get(key, (0.0, None))
        return value if until > self._clock.monotonic() else None

    def take(self, key: str) -> V | None:
        """The same, and it is gone."""
        value = self.get(key)
        self._entries.pop(key, None)
        return value


class Grants:
    """Requests become codes, codes become families of tokens, refresh tokens rotate. `access_token_ttl` in seconds.

    A refresh token names its family, so that a spent one is known for as long as the family lives and rotating keeps
    nothing.
    """

    def __init__(self, clock: Clock, access_token_ttl: float) -> None:
        self._requests: _Kept[AuthorizationRequest] = _Kept(REQUEST_TTL, MOST_REQUESTS, clock)
        self._codes: _Kept[tuple[AuthorizationRequest, _Family]] = _Kept(CODE_TTL, MOST_REQUESTS, clock)
        self._access: _Kept[_Family] = _Kept(access_token_ttl, MOST_FAMILIES, clock)
        self._families: _Kept[_Family] = _Kept(FAMILY_TTL, MOST_FAMILIES, clock)

    def ask(self, request: AuthorizationRequest) -> str:
        """Keep a request while its user chooses; its key goes into the page's form."""
        return self._requests.put(request)

    def asked(self, key: str) -> AuthorizationRequest | None:
        """The request that is waiting under `key`; it is answered once."""
        return self._requests.take(key)

    def new_code(self, request: AuthorizationRequest, subject: str) -> str:
        """A code for the user who has chosen."""
        return self._codes.put((request, _Family(subject, request.scopes)))

    def redeem(self, code: str, *, redirect_uri: str, verifier: str) -> IssuedTokens:
        """Tokens for a code, once (RFC 6749, section 4.1.3; RFC 7636, section 4.6). Raises `InvalidGrant`; a second
        use also revokes what the first gave."""
        found = self._codes.get(code)
        if found is None:
            raise InvalidGrant
        request, family = found
        if family.redeemed:
            family.revoked = True
            raise InvalidGrant
        digest = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        if redirect_uri != request.redirect_uri or not hmac.compare_digest(digest, request.challenge):
            raise InvalidGrant
        family.redeemed = True
        key = self._families.put(family) if "offline_access" in family.scopes else None
        return self._issue(family, key, request.nonce)

    def refresh(self, token: str) -> IssuedTokens:
        """New tokens for a refresh token. Raises `InvalidGrant`; one that was used before revokes the family (RFC 9700,
        section 4.14.2)."""
        key, _, _ = token.partition(".")
        family = self._families.get(key)
        if family is None or family.revoked:
            raise InvalidGrant
        if family.current != token:
            family.revoked = True
            raise InvalidGrant
        self._families.renew(key)
        return self._issue(family, key, None)

    def revoke(self, token: str) -> None:
        """End the family of a token; nothing happens for an unknown one (RFC 7009, section 2.2)."""
        family = self._families.get(token.partition(".")[0]) or self._access.get(token)
        if family is not None:
            family.revoked = True

    def holder(self, access_token: str) -> tuple[str, frozenset[str]] | None:
        """Subject and scopes of a valid access token."""
        family = self._access.get(access_token)
        return (family.subject, family.scopes) if family is not None and not family.revoked else None

    def _issue(self, family: _Family, key: str | None, nonce: str | None) -> IssuedTokens:
        family.current = None if key is None else f"{key}.{secrets.token_urlsafe(32)}"
        return IssuedTokens(
            access_token=self._access.put(family),
            refresh_token=family.current,
            subject=family.subject,
            scopes=family.scopes,
            nonce=nonce,
            sid=family.sid,
        )
