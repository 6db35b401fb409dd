"""ID tokens: which are believed. RFC 8725; OpenID Connect Core, section 3.1.3.7."""

from __future__ import annotations

import base64
import hmac
import json
import warnings
from collections.abc import Mapping
from typing import Any

import pytest
from joserfc import jwe, jws
from joserfc.errors import SecurityWarning
from joserfc.jwk import ECKey, Key, OctKey, OKPKey, RSAKey
from joserfc.registry import HeaderParameter

from tornado_sse_auth.errors import AuthError, ProviderUnavailableError
from tornado_sse_auth.identity import Secret
from tornado_sse_auth.oauth.id_token import SignedToken, check_id_token_claims, read_key_set, verification_key
from tornado_sse_auth.oauth.key_source import KeySource
from tornado_sse_auth.oauth.metadata import SIGNING_ALGORITHMS
from tornado_sse_auth.oauth.outcome import IdentityRejected

NOW = 1_800_000_000.0
ISSUER = "https://provider.example"
ACCESS_TOKEN = Secret("jHkWEdUXMU1BwAsC4vtUsZwnNvTIxEl0z9K3vx5KF0Y")  # OpenID Connect Core, appendix A.4
RSA = RSAKey.generate_key(2048, {"kid": "rsa"})
KEYS: dict[str, Key] = {
    "RS256": RSA,
    "PS256": RSA,
    "ES256": ECKey.generate_key("P-256", {"kid": "p256"}),
    "ES384": ECKey.generate_key("P-384", {"kid": "p384"}),
    "EdDSA": OKPKey.generate_key("Ed25519", {"kid": "ed"}),
}
PUBLIC = read_key_set(
    {"keys": [key.as_dict(private=False) for key in {key.kid: key for key in KEYS.values()}.values()]}
)


def claims(**changes: Any) -> dict[str, Any]:
    good = {"iss": ISSUER, "sub": "alice", "aud": "app", "iat": NOW, "exp": NOW + 300, "nonce": "n"} | changes
    return {name: value for name, value in good.items() if value is not ...}


def sign(payload: object, algorithm: str = "RS256", key: Key | None = None, **header: Any) -> Secret:
    key = key or KEYS[algorithm]
    head = {"alg": algorithm, "kid": key.kid} | header
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SecurityWarning)
        registry = jws.JWSRegistry(
            {"x": HeaderParameter("ours alone", "int")}, algorithms=[algorithm], strict_check_header=False
        )
        data = payload if isinstance(payload, bytes) else json.dumps(payload)
        return Secret(jws.serialize_compact(head, data, key, registry=registry))


def believe(token: Secret, **expected: Any) -> Mapping[str, Any]:
    parsed = SignedToken.parse(token, SIGNING_ALGORITHMS)
    key = verification_key(PUBLIC, parsed.header)
    if key is None:
        raise IdentityRejected(reason="no key")
    found = parsed.verify(key)
    known = {"issuer": ISSUER, "client_id": "app", "now": NOW, "nonce": "n", "access_token": ACCESS_TOKEN}
    check_id_token_claims(found, algorithm=parsed.header["alg"], **(known | expected))
    return found


@pytest.mark.parametrize("algorithm", KEYS)
def test_genuine(algorithm: str) -> None:
    assert believe(sign(claims(), algorithm, typ="JWT", x5t="abc"))["sub"] == "alice"


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": ["app"]},
        {"aud": ["app", "api"], "azp": "app"},
        {"azp": "app"},
        {"exp": NOW - 59},
        {"iat": NOW + 59},
        {"at_hash": "77QmUPtjPfzWtF2AnpK9RQ"},
    ],
)
def test_good_claims(changes: dict[str, Any]) -> None:
    assert believe(sign(claims(**changes)))


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": ISSUER + "/"},
        {"iss": ...},
        {"sub": ...},
        {"sub": ""},
        {"sub": 5},
        {"sub": "x" * 256},
        {"sub": "a\nb"},
        {"aud": "other"},
        {"aud": ["other"]},
        {"aud": ["app", "other"]},
        {"aud": ["app", 5], "azp": "app"},
        {"aud": ...},
        {"aud": {"app": 1}},
        {"azp": "other"},
        {"azp": None},
        {"nonce": "other"},
        {"nonce": ...},
        {"nonce": 5},
        {"exp": NOW - 61},
        {"exp": ...},
        {"exp": 1e300},
        {"exp": 10**400},
        {"exp": float("inf")},
        {"exp": float("nan")},
        {"exp": str(NOW + 300)},
        {"exp": True},
        {"iat": ...},
        {"iat": NOW + 61},
        {"iat": -1},
        {"nbf": NOW + 61},
        {"at_hash": "AAAAAAAAAAAAAAAAAAAAAA"},
        {"at_hash": 5},
    ],
)
def test_bad_claims(changes: dict[str, Any]) -> None:
    """SEC-26."""
    with pytest.raises(IdentityRejected):
        believe(sign(claims(**changes)))


def test_a_refresh_needs_no_nonce() -> None:
    """OpenID Connect Core, section 12.2."""
    assert believe(sign(claims(nonce=...)), nonce=None)


def encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unsigned(header: dict[str, Any]) -> Secret:
    return Secret(f"{encode(json.dumps(header).encode())}.{encode(json.dumps(claims()).encode())}.")


def signed_with_the_public_key() -> Secret:
    # By hand: joserfc itself refuses to do that.
    text = unsigned({"alg": "HS256", "kid": "rsa"}).reveal().rstrip(".")
    return Secret(f"{text}.{encode(hmac.digest(RSA.as_pem(private=False), text.encode(), 'sha256'))}")


def encrypted() -> Secret:
    key = OctKey.import_key("password password password")
    protected = {"alg": "PBES2-HS256+A128KW", "enc": "A128CBC-HS256", "zip": "DEF", "p2c": 1000}
    algorithms = ["PBES2-HS256+A128KW", "A128CBC-HS256", "DEF"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SecurityWarning)
        return Secret(jwe.encrypt_compact(protected, sign(claims()).reveal(), key, algorithms=algorithms))


FORGED = {
    "no signature": lambda: unsigned({"alg": "none"}),
    "no signature, with a key id": lambda: unsigned({"alg": "none", "kid": "rsa"}),
    "no algorithm": lambda: unsigned({"kid": "rsa"}),
    "algorithm is no text": lambda: unsigned({"alg": ["RS256"]}),
    "header is a list": lambda: Secret("W10.e30.AA"),
    "signed with the public key as a secret": lambda: signed_with_the_public_key(),
    "key in the header": lambda: sign(claims(), jwk=RSA.as_dict(private=False)),
    "key by URL": lambda: sign(claims(), jku="https://evil.example/jwks"),
    "unknown critical header": lambda: sign(claims(), crit=["x"], x=1),
    "known critical header": lambda: sign(claims(), crit=["b64"], b64=True),
    "another's key under a known id": lambda: sign(claims(), key=RSAKey.generate_key(2048, {"kid": "rsa"})),
    "unknown key id": lambda: sign(claims(), kid="other"),
    "key id is no text": lambda: unsigned({"alg": "RS256", "kid": 5}),
    "no key id and several keys of the kind": lambda: sign(claims(), key=RSAKey.generate_key(2048), kid=""),
    "key of another kind": lambda: sign(claims(), "ES256", kid="rsa"),
    "an access token": lambda: sign(claims(), typ="at+jwt"),
    "a logout token": lambda: sign(claims(), typ="logout+JWT"),
    "encrypted, with compression": encrypted,
    "claims are a list": lambda: sign([]),
    "claims are no JSON": lambda: sign(b"\xff"),
    "claims nested deeply": lambda: sign(b'{"a":' * 5000),
    "an oversized token": lambda: sign(claims(filler="x" * 200_000)),
    "not even ASCII": lambda: Secret("é.é.é"),
    "empty": lambda: Secret(""),
}


@pytest.mark.parametrize("forge", FORGED.values(), ids=FORGED.keys())
def test_forged(forge: Any) -> None:
    """SEC-26; CVE-2024-37568 and relatives."""
    with pytest.raises(IdentityRejected):
        believe(forge())


def test_at_hash_under_an_algorithm_without_one() -> None:
    """SEC-26: a hash that cannot be computed is not a hash that fits."""
    with pytest.raises(IdentityRejected):
        check_id_token_claims(
            claims(at_hash="x"), algorithm="XX", issuer=ISSUER, client_id="app", now=NOW, nonce="n",
            access_token=ACCESS_TOKEN,
        )  # fmt: skip


def test_key_sets() -> None:
    """SEC-27: what is not understood is skipped, and the rest works."""
    good = RSA.as_dict(private=False)
    odd: list[Any] = [
        {"kty": "PQ", "kid": "q"},
        {"kty": "RSA", "kid": "broken", "n": "!", "e": "AQAB"},
        {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"},
        {"kty": "oct", "k": "c2VjcmV0", "kid": "rsa"},
        {**good, "use": "enc"},
        {"kid": "no kty"},
        "text",
        None,
    ]
    keys = read_key_set({"keys": [*odd, good]})
    assert [key.kid for key in keys] == ["rsa"]
    for document in ({}, {"keys": {}}, {"keys": None}):
        with pytest.raises(ValueError):
            read_key_set(document)


def test_a_small_rsa_key_is_skipped() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SecurityWarning)
        small = RSAKey.generate_key(1024, {"kid": "small"}).as_dict(private=False)
    assert read_key_set({"keys": [small]}) == ()


class Clock:
    now = 0.0

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now


async def test_unknown_key_ids_refetch_at_most_once_a_minute() -> None:
    """SEC-27: a thousand invented ids are one request, also while none is answered; a key that was rotated in is
    found."""
    published: list[Key] = [KEYS["ES256"]]
    fetched, away = 0, False

    async def load() -> Mapping[str, Any]:
        nonlocal fetched
        fetched += 1
        if away:
            raise ProviderUnavailableError(reason="away, says the test")
        return {"keys": [key.as_dict(private=False) for key in published]}

    clock = Clock()
    source = KeySource(load, clock=clock)
    assert (await source.find({"alg": "ES256", "kid": "p256"})).kid == "p256"
    for number in range(1000):
        with pytest.raises(IdentityRejected):
            await source.find({"alg": "RS256", "kid": f"unknown-{number}"})
    assert fetched == 2
    away = True
    clock.now += 61
    for number in range(1000):
        with pytest.raises(AuthError):
            await source.find({"alg": "RS256", "kid": f"unknown-{number}"})
    assert fetched == 3
    assert (await source.find({"alg": "ES256", "kid": "p256"})).kid == "p256"
    away = False
    published.append(RSA)
    clock.now += 61
    assert (await source.find({"alg": "RS256", "kid": "rsa"})).kid == "rsa"
    assert fetched == 4
    await source.close()
