"""Random answers of a provider: a token set, metadata, keys and claims that can be used, or a refusal (SEC-07)."""

from __future__ import annotations

import base64
import json
import math
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from tests.security.drawn import HEADER, JSON, raises
from tornado_sse_auth.errors import (
    ConfigurationError,
)
from tornado_sse_auth.identity import Secret
from tornado_sse_auth.oauth.http import Answer, parse_retry_after
from tornado_sse_auth.oauth.id_token import SignedToken, check_id_token_claims, read_key_set, verification_key
from tornado_sse_auth.oauth.logout_token import LogoutToken
from tornado_sse_auth.oauth.metadata import SIGNING_ALGORITHMS, read_metadata
from tornado_sse_auth.oauth.outcome import IdentityRejected, TokenCallFailure
from tornado_sse_auth.oauth.token_response import TokenResponse, read_token_answer

# -- what a provider sends --------------------------------------------------------------------------------------------

TOKEN_FIELDS = st.dictionaries(
    st.sampled_from(["access_token", "refresh_token", "expires_in", "scope", "token_type", "id_token", "error"]), JSON
)


@given(
    st.integers(200, 599), st.binary(max_size=60) | (TOKEN_FIELDS | JSON).map(lambda value: json.dumps(value).encode())
)
def test_token_answer(status: int, body: bytes) -> None:
    """REL-13, REL-14: a token set that can be used, or a failure that says what was spent."""
    answer = Answer(status=status, body=body)
    found = raises(TokenCallFailure, lambda: read_token_answer(answer, presented=Secret("old")))
    if found is not None:
        assert isinstance(found, TokenResponse)
        assert 200 <= status < 300
        assert found.access_token.reveal().isprintable()
        assert found.expires_in is None or 1 <= found.expires_in < math.inf


@given(
    st.dictionaries(
        st.sampled_from(
            [
                "issuer",
                "authorization_endpoint",
                "token_endpoint",
                "jwks_uri",
                "userinfo_endpoint",
                "token_endpoint_auth_methods_supported",
                "id_token_signing_alg_values_supported",
            ]
        ),
        JSON
        | st.sampled_from(
            [
                "https://id.example/x",
                "http://id.example",
                "//x",
                "https:///x",
                "https://u@id.example/",
                "javascript:x",
                "https://[",
                "https://id.example:99999/",
            ]
        ),
    )
)
def test_metadata(document: dict[str, Any]) -> None:
    """SEC-28: metadata whose every endpoint is https, or a start that is refused with a text."""
    good = {
        "issuer": "https://id.example",
        "authorization_endpoint": "https://id.example/a",
        "token_endpoint": "https://id.example/t",
        "jwks_uri": "https://id.example/j",
    }
    found = raises(
        ConfigurationError, lambda: read_metadata({**good, **document}, issuer="https://id.example", openid=True)
    )
    if found is not None:
        urls = (found.authorization_endpoint, found.token_endpoint, found.jwks_uri, found.userinfo_endpoint)
        assert all(url is None or url.startswith("https://") for url in urls)
        assert found.signing_algorithms <= SIGNING_ALGORITHMS


PARTS = (JSON.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=20)).map(
    lambda raw: base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
)
HEADERS = st.dictionaries(
    st.sampled_from(["alg", "kid", "typ", "crit", "jwk", "zip", "b64"]),
    JSON | st.sampled_from(["RS256", "none", "HS256", "at+jwt"]),
).map(lambda header: base64.urlsafe_b64encode(json.dumps(header).encode()).rstrip(b"=").decode())


@given(
    st.text(max_size=60) | st.lists(PARTS, max_size=5).map(".".join) | st.tuples(HEADERS, PARTS, PARTS).map(".".join)
)
def test_signed_token(token: str) -> None:
    """SEC-26: nothing that was not signed by a known key gets further than its header."""
    parsed = raises(IdentityRejected, lambda: SignedToken.parse(Secret(token), SIGNING_ALGORITHMS))
    if parsed is not None:
        assert parsed.header["alg"] in SIGNING_ALGORITHMS
        assert verification_key((), parsed.header) is None


CLAIMS = st.dictionaries(
    st.sampled_from(["iss", "sub", "aud", "azp", "exp", "iat", "nbf", "nonce", "at_hash", "events", "sid", "jti"]), JSON
)


@given(CLAIMS)
@example({"aud": ["c", "d"], "azp": "d"})
@example({"exp": float("nan")})
@example({"sub": None, "sid": "", "events": {"http://schemas.openid.net/event/backchannel-logout": []}})
@example({"nonce": None, "jti": "j" * 300})
def test_claims(claims: dict[str, Any]) -> None:
    """SEC-26: claims of any type prove an identity or a logout, or are refused."""
    good = {"iss": "i", "sub": "s", "aud": "c", "exp": 2000.0, "iat": 1000.0, "nonce": "n", "jti": "j"}
    changed = {**good, **claims}

    def check() -> bool:
        check_id_token_claims(
            changed, algorithm="RS256", issuer="i", client_id="c", now=1000.0, nonce="n", access_token=Secret("a")
        )
        return True

    if raises(IdentityRejected, check):
        assert (changed["iss"], changed["nonce"]) == ("i", "n")
        assert isinstance(changed["sub"], str)
    logout = {**good, "events": {"http://schemas.openid.net/event/backchannel-logout": {}}, **claims}
    if "nonce" not in claims:
        del logout["nonce"]
    found = raises(IdentityRejected, lambda: LogoutToken.read(logout, issuer="i", client_id="c", now=1000.0))
    assert found is None or "nonce" not in logout


@given(
    JSON
    | st.lists(
        st.dictionaries(
            st.sampled_from(["kty", "n", "e", "kid", "use", "alg", "crv", "x", "y", "k"]),
            JSON | st.sampled_from(["RSA", "EC", "oct", "OKP", "AQAB", "P-256", "sig"]),
        ),
        max_size=3,
    )
)
def test_key_set(entries: Any) -> None:
    """SEC-27: keys that are understood, or none; one that is not costs the others nothing."""
    found = raises(ValueError, lambda: read_key_set({"keys": entries}))
    assert found is None or isinstance(found, tuple)


@given(HEADER | st.integers().map(str))
@example("9" * 5000)
@example("Fri, 31 Dec 99999 23:59:59 GMT")
@example("-1")
def test_retry_after(value: str) -> None:
    """REL-12: seconds up to the cap, or none."""
    seconds = parse_retry_after(value, now=1_700_000_000.0)
    assert seconds is None or 0 <= seconds <= 300
