"""Keys and ID tokens (OpenID Connect Core, section 3.1.3.7; RFC 8725): what makes a token trustworthy. Pure."""

from __future__ import annotations

import hmac
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from authlib.oidc.core.util import create_half_hash
from joserfc import jws
from joserfc.errors import JoseError, SecurityWarning, UnsupportedAlgorithmError
from joserfc.jwk import ECKey, Key, OKPKey, RSAKey, import_key
from joserfc.jws import JWSRegistry
from joserfc.registry import Header

from ..identity import Secret
from .http import parse_json
from .outcome import AnotherSubject, IdentityRejected

__all__ = [
    "LEEWAY",
    "SignedToken",
    "check_id_token_claims",
    "check_identifying_claims",
    "check_time_claims",
    "check_userinfo_claims",
    "claimed_subject",
    "read_key_set",
    "require",
    "verification_key",
]

# Seconds by which our clock and the provider's may differ.
LEEWAY = 60.0
MAX_LIFETIME = 10 * 366 * 86_400.0
MAX_KEYS = 100
# They bring a key of their own, demand what we do not know, or change what is signed.
REFUSED_HEADERS = frozenset(("jwk", "jku", "x5u", "crit", "b64", "enc", "zip"))


class _Registry(JWSRegistry):
    """joserfc's checks with our list of algorithms: without one, joserfc would fall back to its own, HS256 included."""

    max_header_length = 4096

    def __init__(self, algorithms: Collection[str]) -> None:
        super().__init__(algorithms=algorithms, strict_check_header=False)
        self._accepted = frozenset(algorithms)

    def get_alg(self, name: str) -> Any:
        if name not in self._accepted or name not in self.algorithms:
            raise UnsupportedAlgorithmError("the algorithm is not accepted")
        return self.algorithms[name]


@dataclass(frozen=True, slots=True)
class SignedToken:
    """A JWS whose header has been checked and whose signature has not."""

    _signature: jws.CompactSignature
    _registry: _Registry

    @classmethod
    def parse(cls, token: Secret, algorithms: Collection[str], *, explicit_type: str | None = None) -> SignedToken:
        """Raises `IdentityRejected` for all but a JWS under one of `algorithms` without `crit` or keys of its own.

        A token that names an explicit type (RFC 8725, section 3.11) must name `explicit_type`."""
        registry = _Registry(algorithms)
        try:
            signature = jws.extract_compact(token.reveal().encode("ascii"), registry=registry)
            header = signature.headers()
            refused = REFUSED_HEADERS & header.keys()
            if refused:
                raise IdentityRejected(reason=f"the token's header has {', '.join(sorted(refused))}")
            registry.check_header(header)
            registry.get_alg(header["alg"])
        except (JoseError, ValueError, TypeError, AttributeError, RecursionError) as error:
            raise IdentityRejected(reason=f"the token is no acceptable JWS: {type(error).__name__}") from None
        signed = cls(signature, registry)
        if signed.token_type.endswith("+jwt") and signed.token_type != explicit_type:
            # Access tokens, logout tokens and others that the same provider signs.
            raise IdentityRejected(reason="the token is explicitly of another type")
        return signed

    @property
    def header(self) -> Header:
        """The header, `alg` and `kid` among it."""
        return self._signature.headers()

    @property
    def token_type(self) -> str:
        """`typ` as RFC 7515, section 4.1.9, compares it; empty where there is none."""
        return str(self.header.get("typ", "")).lower().removeprefix("application/")

    def verify(self, key: Key) -> dict[str, Any]:
        """The claims, once the signature is good. Raises `IdentityRejected`."""
        try:
            good = jws.validate_compact(self._signature, key, registry=self._registry)
            claims = parse_json(self._signature.payload or b"")
        except (JoseError, ValueError, TypeError) as error:
            raise IdentityRejected(reason=f"the token cannot be verified: {type(error).__name__}") from None
        if not good:
            raise IdentityRejected(reason="the token's signature is wrong")
        if not isinstance(claims, dict):
            raise IdentityRejected(reason="the token's claims are no object")
        return claims


def claimed_subject(token: Secret) -> str | None:
    """The subject that a token names, whoever signed it; None where it cannot be read, and then no `SignedToken` is
    made of it either. It proves nothing: it is for those who would refuse the token whether or not it is genuine."""
    try:
        signature = jws.extract_compact(token.reveal().encode("ascii"), registry=_Registry(()))
        claims = parse_json(signature.payload or b"")
    except (JoseError, ValueError, TypeError, AttributeError, RecursionError):
        return None
    subject = claims.get("sub") if isinstance(claims, dict) else None
    return subject if isinstance(subject, str) else None


def read_key_set(document: Mapping[str, Any]) -> tuple[Key, ...]:
    """The public signing keys of a JWK set. Keys we do not understand are skipped (RFC 7517, section 5)."""
    entries = document.get("keys")
    if not isinstance(entries, list):
        raise ValueError("no key set")  # noqa: TRY004 - the document is wrong, not the caller
    keys: list[Key] = []
    with warnings.catch_warnings():
        # joserfc warns of keys too small to trust.
        warnings.simplefilter("error", SecurityWarning)
        for entry in entries[:MAX_KEYS]:
            if not isinstance(entry, dict) or entry.get("use", "sig") != "sig" or entry.get("kty") == "oct":
                continue
            try:
                keys.append(import_key(entry))
            except (JoseError, SecurityWarning, ValueError, TypeError, KeyError, AttributeError):
                continue
    return tuple(keys)


def verification_key(keys: Sequence[Key], header: Header) -> Key | None:
    """The key that `header` means; None where there is none, or several and no `kid` to tell them apart."""
    algorithm, kid = header["alg"], header.get("kid")
    fitting = [key for key in keys if _fits(key, algorithm) and kid in (None, key.kid)]
    return fitting[0] if len(fitting) == 1 or (fitting and kid is not None) else None


def _fits(key: Key, algorithm: str) -> bool:
    if key.get("alg", algorithm) != algorithm:
        return False
    if algorithm.startswith(("RS", "PS")):
        return isinstance(key, RSAKey)
    if algorithm.startswith("ES"):
        curves = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521"}
        return isinstance(key, ECKey) and key.curve_name == curves[algorithm]
    return isinstance(key, OKPKey) and key.curve_name == "Ed25519"


def check_id_token_claims(
    claims: Mapping[str, Any],
    *,
    algorithm: str,
    issuer: str,
    client_id: str,
    now: float,
    nonce: str | None,
    access_token: Secret | None = None,
) -> None:
    """The rules of OpenID Connect Core, section 3.1.3.7. Raises `IdentityRejected`.

    `nonce` is None at a refresh, where the ID token need not have one (section 12.2). `now`: epoch seconds.
    """
    audiences = check_identifying_claims(claims, issuer=issuer)
    require(client_id in audiences, "another audience")
    alone = len(audiences) == 1 and "azp" not in claims
    require(alone or claims.get("azp") == client_id, "another authorized party")
    check_time_claims(claims, now=now)
    if nonce is not None:
        given = claims.get("nonce")
        require(isinstance(given, str) and hmac.compare_digest(given.encode(), nonce.encode()), "another nonce")
    if access_token is not None and "at_hash" in claims:
        expected = create_half_hash(access_token.reveal(), "EdDSA" if algorithm == "Ed25519" else algorithm)
        require(expected is not None and claims["at_hash"] == expected.decode(), "another access token's hash")


def check_identifying_claims(claims: Mapping[str, Any], *, issuer: str) -> list[str]:
    """The token is of `issuer` and names a subject; the audiences it is for. Raises `IdentityRejected`."""
    require(claims.get("iss") == issuer, "another issuer")
    subject = claims.get("sub")
    require(isinstance(subject, str) and 0 < len(subject) <= 255 and subject.isprintable(), "no proper subject")
    audience: Any = claims.get("aud")
    audiences: list[str] = audience if isinstance(audience, list) else [audience]
    require(all(isinstance(item, str) for item in audiences), "no proper audience")
    return audiences


def check_userinfo_claims(claims: Mapping[str, Any], *, subject: str | None) -> None:
    """Userinfo names a subject, and no other than `subject` (OpenID Connect Core, section 5.3.2). Raises
    `IdentityRejected`, of which `AnotherSubject` is one."""
    given = claims.get("sub")
    if not isinstance(given, str) or not given:
        raise IdentityRejected(reason="userinfo names no subject")
    if subject is not None and given != subject:
        raise AnotherSubject(reason="userinfo is about another subject than the ID token")


def check_time_claims(claims: Mapping[str, Any], *, now: float, leeway: float = LEEWAY) -> None:
    """`exp` and `iat` are there and plausible, `nbf` plausible where it is there. Raises `IdentityRejected`."""
    require(_within(claims.get("exp"), now - leeway, now + MAX_LIFETIME), "no expiry, or one out of bounds")
    require(_within(claims.get("iat"), -1, now + leeway), "no time of issue, or one in the future")
    require(_within(claims.get("nbf", now), -1, now + leeway), "a start in the future")


def _within(value: object, low: float, high: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and low < value < high


def require(holds: bool, what: str) -> None:
    """Raises `IdentityRejected` unless it `holds`: the token has `what`."""
    if not holds:
        raise IdentityRejected(reason=f"the token has {what}")
