"""Logout tokens: which are believed. OpenID Connect Back-Channel Logout 1.0, section 2.6."""

from __future__ import annotations

from typing import Any

import pytest

from tornado_sse_auth.oauth.logout_token import LOGOUT_EVENT, MAX_AGE, LogoutToken
from tornado_sse_auth.oauth.outcome import IdentityRejected

NOW = 1_800_000_000.0
ISSUER = "https://provider.example"


def read(**changes: Any) -> LogoutToken:
    good = {"iss": ISSUER, "aud": "app", "iat": NOW, "exp": NOW + 120, "jti": "j", "sub": "alice", "sid": "s"}
    claims = good | {"events": {LOGOUT_EVENT: {}}} | changes
    given = {name: value for name, value in claims.items() if value is not ...}
    return LogoutToken.read(given, issuer=ISSUER, client_id="app", now=NOW)


def test_what_a_good_one_says() -> None:
    assert read() == LogoutToken(subject="alice", sid="s", jti="j", until=NOW + 360)
    assert read(sub=...).subject is None
    assert read(sid=...).sid is None
    assert read(aud=["other", "app"], events={LOGOUT_EVENT: {}, "https://more.example": {}}).jti == "j"
    assert read(iat=NOW - MAX_AGE, exp=NOW - 59).until == NOW + 60  # the clocks differ by a minute


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "https://other.example"},
        {"iss": ...},
        {"aud": "other"},
        {"aud": ["other"]},
        {"aud": ...},
        {"iat": ...},
        {"iat": NOW + 100},
        {"iat": NOW - MAX_AGE - 61},
        {"iat": "now"},
        {"exp": ...},
        {"exp": NOW - 61},
        {"exp": 1e300},
        {"jti": ...},
        {"jti": ""},
        {"jti": 7},
        {"jti": "j" * 256},
        {"events": ...},
        {"events": {}},
        {"events": [LOGOUT_EVENT]},
        {"events": {LOGOUT_EVENT: "yes"}},
        {"events": {"https://other.example": {}}},
        {"nonce": "n"},
        {"nonce": None},
        {"sub": ..., "sid": ...},
        {"sub": {"$gt": ""}},
        {"sid": ["s"]},
        {"sid": "s\n"},
    ],
    ids=repr,
)
def test_what_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(IdentityRejected):
        read(**changes)
