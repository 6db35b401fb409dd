"""From claims to an identity."""

from __future__ import annotations

from typing import Any

import pytest

from tornado_sse_auth.oauth.identity_mapper import default_identity_mapper
from tornado_sse_auth.oauth.outcome import IdentityRejected

SCOPES = frozenset({"openid"})


def test_default_mapping() -> None:
    identity = default_identity_mapper(
        {
            "iss": "https://p.example",
            "sub": "alice",
            "aud": "app",
            "exp": 5,
            "nonce": "n",
            "name": "Alice",
            "permissions": ["trade", 5, ""],
            "roles": "admin staff",
            "subscription_level": "pro",
        },
        SCOPES,
    )
    assert identity.user_id == "https://p.example|alice"
    assert identity.scopes == SCOPES
    assert identity.permissions == {"trade", "admin", "staff"}
    assert identity.subscription == "pro"
    assert identity.claims["name"] == "Alice"
    assert identity.claims.keys().isdisjoint({"aud", "exp", "nonce"})


def test_the_same_address_is_not_the_same_user() -> None:
    """SEC-27: e-mail, verified or not, identifies nobody and grants nothing."""
    claims: dict[str, Any] = {"iss": "https://p.example", "email": "a@b.example", "email_verified": False}
    first, second = (default_identity_mapper(claims | {"sub": sub}, SCOPES) for sub in ("1", "2"))
    assert first.user_id != second.user_id
    assert (first.permissions, first.subscription) == (frozenset(), None)


@pytest.mark.parametrize("claims", [{}, {"iss": "i"}, {"sub": "s"}, {"iss": "i", "sub": ""}, {"iss": 5, "sub": "s"}])
def test_no_identity(claims: dict[str, Any]) -> None:
    with pytest.raises(IdentityRejected):
        default_identity_mapper(claims, SCOPES)
