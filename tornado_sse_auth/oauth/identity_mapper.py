"""From the provider's claims to who the user is here. Applications may bring their own function. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from ..identity import NO_CLAIMS
from .outcome import IdentityRejected

__all__ = ["Identity", "IdentityMapper", "default_identity_mapper"]

# Claims about the ID token itself; they say nothing of the user and change with every token.
PROTOCOL_CLAIMS = frozenset(("aud", "at_hash", "azp", "c_hash", "exp", "iat", "jti", "nbf", "nonce", "s_hash", "sid"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who a user is here. `user_id` is unique over all providers; `claims` is what handlers may see of the rest."""

    user_id: str
    scopes: frozenset[str] = frozenset()
    permissions: frozenset[str] = frozenset()
    subscription: str | None = None
    claims: Mapping[str, Any] = field(default_factory=lambda: NO_CLAIMS)


IdentityMapper = Callable[[Mapping[str, Any], frozenset[str]], Identity]


def default_identity_mapper(claims: Mapping[str, Any], granted_scope: frozenset[str]) -> Identity:
    """User id `iss|sub`, permissions from `permissions` and `roles`, subscription from `subscription_level`.

    `claims` are those of ID token and userinfo together. An e-mail address identifies nobody: two accounts may have the
    same one (OpenID Connect Core, section 5.7). Raises `IdentityRejected` where issuer or subject is missing.
    """
    issuer, subject = claims.get("iss"), claims.get("sub")
    if not (isinstance(issuer, str) and issuer and isinstance(subject, str) and subject):
        raise IdentityRejected(reason="the claims name no issuer or no subject")
    subscription = claims.get("subscription_level")
    return Identity(
        user_id=f"{issuer}|{subject}",
        scopes=granted_scope,
        permissions=_names(claims.get("permissions")) | _names(claims.get("roles")),
        subscription=subscription if isinstance(subscription, str) and subscription else None,
        claims=MappingProxyType({name: value for name, value in claims.items() if name not in PROTOCOL_CLAIMS}),
    )


def _names(value: object) -> frozenset[str]:
    if isinstance(value, str):
        return frozenset(value.split())
    if isinstance(value, list):
        return frozenset(item for item in value if isinstance(item, str) and item)
    return frozenset()
