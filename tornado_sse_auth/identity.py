"""Who is behind a request: secrets, token sets, sessions and the user context. Data only."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any, NoReturn

__all__ = [
    "Credential",
    "CredentialKind",
    "Grant",
    "RefreshState",
    "Secret",
    "Session",
    "SessionState",
    "SpentRefreshToken",
    "TokenSet",
    "UserContext",
]

LONGEST_POSTPONEMENT = 360.0  # seconds: the longest pause a provider may ask for, and some for clocks that differ
NO_CLAIMS: Mapping[str, Any] = MappingProxyType({})


class Secret:
    """A string that must not be seen. Only `reveal()` gives it away; repr, str, format, pickle and JSON do not.

    Comparison takes constant time.
    """

    __slots__ = ("__value",)

    def __init__(self, value: str) -> None:
        if not isinstance(value, str):
            raise TypeError("a secret is a string")
        self.__value = value

    @classmethod
    def random(cls) -> Secret:
        """A new secret of 256 random bits, URL-safe."""
        return cls(secrets.token_urlsafe(32))

    def reveal(self) -> str:
        """The secret itself."""
        return self.__value

    def digest(self) -> bytes:
        """SHA-256 of the secret: what is stored of a credential."""
        return hashlib.sha256(self.__value.encode("utf-8", "surrogatepass")).digest()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self.digest(), other.digest())

    def __hash__(self) -> int:
        return hash(self.digest())

    def __bool__(self) -> bool:
        return bool(self.__value)

    def __repr__(self) -> str:
        return "Secret(…)"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a secret cannot be pickled or copied")


class SessionState(StrEnum):
    """ACTIVE, or REAUTHORIZATION: its user must sign in again at an authorization URL."""

    ACTIVE = "active"
    REAUTHORIZATION = "reauthorization"


class CredentialKind(StrEnum):
    """How a client presents a credential. Requests are made with cookies and bearers only; an authorization code and a
    refresh token are presented to the token endpoint of the authorization server."""

    COOKIE = "cookie"
    BEARER = "bearer"
    CODE = "code"
    REFRESH = "refresh"


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """The stored half of a credential; the secret itself is only with the client.

    `digest`: SHA-256 of the secret. `expires_at`: epoch seconds. `parent`: digest of the cookie a bearer was made with,
    which ends with it. `grant`: id of the grant that it belongs to; then `scopes` and `audience` (URIs of resources)
    are all that it is good for. Of a refresh token only the part that names the grant is here.
    """

    digest: bytes
    kind: CredentialKind
    created_at: float
    expires_at: float
    parent: bytes | None = None
    grant: str | None = None
    scopes: frozenset[str] | None = None
    audience: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.digest) != 32:
            raise ValueError("a credential is stored as its SHA-256")


@dataclass(frozen=True, slots=True, kw_only=True)
class SpentRefreshToken:
    """A refresh token of a grant that was exchanged at `spent_at`, by its SHA-256. `successor` is the one that it was
    exchanged for, sealed under a key that only this token gives."""

    digest: bytes
    successor: bytes
    spent_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """What a user has allowed one installation of a client; it stands on a session, and its tokens are credentials of
    that session. Times are epoch seconds.

    `audience` are the URIs of the resources it is good for (RFC 8707), `name` is the client's for people. `challenge`
    is the PKCE challenge of its authorization code, `pending` until that is exchanged. `refused` are scopes that were
    asked for and that the account did not have. `refreshes`: the client is given refresh tokens. `refresh_token` is the
    SHA-256 of the current one, `spent` are those before it that may still be presented, oldest first; `access_token` is
    the one last given, sealed under a key that the current refresh token gives. `answered`: the last answer of the
    token endpoint has arrived, for one of its tokens was used.
    """

    id: str
    client_id: str
    redirect_uri: str
    audience: tuple[str, ...]
    scopes: frozenset[str]
    created_at: float
    last_used: float
    name: str = ""
    challenge: str = ""
    pending: bool = False
    refreshes: bool = True
    refused: frozenset[str] = frozenset()
    refresh_token: bytes | None = None
    spent: tuple[SpentRefreshToken, ...] = ()
    access_token: bytes | None = None
    answered: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenSet:
    """Upstream tokens of one session. `issued_at` and `expires_at` are epoch seconds of our wall clock.

    `refresh_token` is None where the provider gave none: at expiry the user must sign in again.
    """

    access_token: Secret
    refresh_token: Secret | None
    issued_at: float
    expires_at: float
    scopes: frozenset[str] = frozenset()

    @property
    def lifetime(self) -> float:
        """Seconds the access token was good for when it was issued."""
        return self.expires_at - self.issued_at


@dataclass(frozen=True, slots=True, kw_only=True)
class RefreshState:
    """What processes tell each other, on the row, about the refresh of one session.

    `owner` holds the lease until `until` (epoch seconds of the *store's* clock); `fence` counts the leases ever taken.
    `intent` is the SHA-256 of the refresh token that is being spent, `presented` how often it may have reached the
    provider without a known outcome. `not_before` (epoch seconds) is when the next attempt may begin after `failures`
    transient failures in a row.
    """

    owner: str | None = None
    until: float = 0.0
    fence: int = 0
    intent: bytes | None = None
    presented: int = 0
    not_before: float = 0.0
    failures: int = 0

    def postponement(self, now: float) -> float:
        """Seconds from `now` until the next attempt may begin; 0 where it may. A `not_before` farther ahead than any
        that is ever written comes from a clock that was wrong then or is now, and counts for nothing."""
        ahead = self.not_before - now
        return ahead if 0.0 < ahead <= LONGEST_POSTPONEMENT else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One user's sign-in, as stored. All times are epoch seconds.

    `version` rises with every write that others must see, `token_version` with every new token set. `reauth` is the
    random value that binds an authorization URL to this session while it needs its user; `reauth_reason` says why.
    `sid` is the provider's own session id (OpenID Connect), `enriched_at` when userinfo was last asked. `stored` is
    False for what a bearer of another authorization server opens: it is in no store and ends with that bearer.
    """

    id: str
    user_id: str
    created_at: float
    last_seen: float
    expires_at: float
    idle_expires_at: float
    scopes: frozenset[str] = frozenset()
    permissions: frozenset[str] = frozenset()
    subscription: str | None = None
    claims: Mapping[str, Any] = field(default_factory=lambda: NO_CLAIMS)
    credentials: tuple[Credential, ...] = ()
    grants: tuple[Grant, ...] = ()
    token_set: TokenSet | None = None
    token_version: int = 0
    state: SessionState = SessionState.ACTIVE
    reauth: Secret | None = None
    reauth_reason: str | None = None
    refresh: RefreshState = field(default_factory=RefreshState)
    sid: str | None = None
    enriched_at: float = 0.0
    client: str = ""
    version: int = 1
    stored: bool = True

    @property
    def ends_at(self) -> float:
        """Epoch seconds at which the session ends if nobody uses it again."""
        return min(self.expires_at, self.idle_expires_at)

    @property
    def subject(self) -> tuple[str, str] | None:
        """Issuer and subject at the provider where its user signed in, or None."""
        issuer, subject = self.claims.get("iss"), self.claims.get("sub")
        return (issuer, subject) if isinstance(issuer, str) and isinstance(subject, str) else None

    def credential(self, digest: bytes) -> Credential | None:
        """The stored credential with this digest, whatever its expiry, or None."""
        for credential in self.credentials:
            if hmac.compare_digest(credential.digest, digest):
                return credential
        return None

    def grant(self, grant_id: str | None) -> Grant | None:
        """The grant with this id, or None."""
        return next((grant for grant in self.grants if grant.id == grant_id), None)

    def user_context(self, scopes: frozenset[str] | None = None) -> UserContext:
        """What a handler sees of this session; with `scopes`, through a token that is good for no more than these."""
        return UserContext(
            user_id=self.user_id,
            session_id=self.id,
            scopes=self.scopes if scopes is None else self.scopes & scopes,
            permissions=self.permissions,
            subscription=self.subscription,
            claims=self.claims,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class UserContext:
    """What a handler sees of the user. Immutable; holds no token and no credential."""

    user_id: str
    session_id: str
    scopes: frozenset[str] = frozenset()
    permissions: frozenset[str] = frozenset()
    subscription: str | None = None
    claims: Mapping[str, Any] = field(default_factory=lambda: NO_CLAIMS, hash=False)
