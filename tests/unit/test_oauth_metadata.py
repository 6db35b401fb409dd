"""The provider's metadata, and how we authenticate at its endpoints."""

from __future__ import annotations

import base64
from typing import Any
from urllib.parse import parse_qs

import pytest

from tornado_sse_auth.errors import ConfigurationError
from tornado_sse_auth.identity import Secret
from tornado_sse_auth.oauth.client_authentication import ClientCredentials
from tornado_sse_auth.oauth.metadata import SIGNING_ALGORITHMS, check_issuer, read_metadata, well_known_urls

ISSUER = "https://provider.example/tenant"


def document(issuer: str = ISSUER, **changes: Any) -> dict[str, Any]:
    return {
        "issuer": issuer,
        "authorization_endpoint": f"{issuer}/auth",
        "token_endpoint": f"{issuer}/token",
        "jwks_uri": f"{issuer}/jwks",
    } | changes


def test_where_metadata_lies() -> None:
    assert well_known_urls(ISSUER) == (
        "https://provider.example/tenant/.well-known/openid-configuration",
        "https://provider.example/.well-known/oauth-authorization-server/tenant",
    )
    assert well_known_urls("https://p.example/")[0] == "https://p.example/.well-known/openid-configuration"


def test_good_metadata() -> None:
    metadata = read_metadata(
        document(
            id_token_signing_alg_values_supported=["none", "HS256", "ES256", "RS256"],
            authorization_response_iss_parameter_supported=True,
        ),
        issuer=ISSUER,
        openid=True,
    )
    assert metadata.signing_algorithms == {"ES256", "RS256"}
    assert metadata.iss_parameter
    assert read_metadata(document(), issuer=ISSUER, openid=True).signing_algorithms == SIGNING_ALGORITHMS
    loopback = "http://127.0.0.1:4000"
    assert read_metadata(document(loopback), issuer=loopback, openid=True).token_endpoint == f"{loopback}/token"


@pytest.mark.parametrize(
    "changes",
    [
        {"issuer": ISSUER + "/"},
        {"issuer": "https://other.example"},
        {"issuer": None},
        {"token_endpoint": "http://provider.example/token"},
        {"token_endpoint": "http://127.0.0.1/token"},
        {"token_endpoint": None},
        {"token_endpoint": ["https://provider.example/token"]},
        {"authorization_endpoint": "javascript:alert(1)"},
        {"authorization_endpoint": "https://provider.example/a#b"},
        {"authorization_endpoint": "https://user@provider.example/a"},
        {"authorization_endpoint": "https://provider.example/a\r\nX: y"},
        {"authorization_endpoint": "https://provider.example:99999/a"},
        {"authorization_endpoint": "//provider.example/a"},
        {"userinfo_endpoint": "file:///etc/passwd"},
        {"revocation_endpoint": "ftp://provider.example"},
        {"jwks_uri": "http://provider.example/jwks"},
        {"jwks_uri": None},
        {"id_token_signing_alg_values_supported": ["HS256", "none"]},
        {"id_token_signing_alg_values_supported": "RS256"},
    ],
)
def test_refused_metadata(changes: dict[str, Any]) -> None:
    """SEC-28."""
    with pytest.raises(ConfigurationError):
        read_metadata(document(**changes), issuer=ISSUER, openid=True)


@pytest.mark.parametrize(
    "issuer",
    ["", "provider.example", "http://provider.example", "https://p.example?a=b", "https://p.example#f", "ftp://p"],
)
def test_refused_issuer(issuer: str) -> None:
    """SEC-28."""
    with pytest.raises(ConfigurationError):
        check_issuer(issuer)


def test_basic_authentication_encodes_both_halves() -> None:
    """RFC 6749, section 2.3.1: form-encoded, then joined."""
    credentials = ClientCredentials("my client:1", Secret("p%+ä"))
    headers, body = credentials.form("https://p.example/token", {"grant_type": "x", "code": "a&b=c"}, None)
    scheme, value = headers["Authorization"].split()
    assert (scheme, base64.b64decode(value)) == ("Basic", b"my+client%3A1:p%25%2B%C3%A4")
    assert parse_qs(body) == {"grant_type": ["x"], "code": ["a&b=c"]}


def test_other_authentication_methods() -> None:
    confidential = ClientCredentials("app", Secret("s&1"))
    headers, body = confidential.form("https://p.example/token", {"a": "b"}, frozenset({"client_secret_post"}))
    assert "Authorization" not in headers
    assert parse_qs(body) == {"a": ["b"], "client_id": ["app"], "client_secret": ["s&1"]}
    _, body = ClientCredentials("app", None).form("https://p.example/token", {"a": "b"}, None)
    assert parse_qs(body) == {"a": ["b"], "client_id": ["app"]}
    with pytest.raises(ConfigurationError):
        confidential.method(frozenset({"private_key_jwt", "none"}))
