"""`JWTBearerVerifier`: JWT access tokens (RFC 9068) of somebody else's authorization server."""

from __future__ import annotations

import binascii
import logging
import math
from base64 import urlsafe_b64decode
from collections.abc import Collection, Mapping
from typing import Any

from ..clock import Clock, SystemClock
from ..errors import ConfigurationError, ExpiredTokenError, InvalidTokenError, ProviderUnavailableError
from ..identity import Secret
from .bearer_verifier import VerifiedBearer
from .discovery import fetch_document, fetch_metadata
from .http import HTTPClient, parse_json
from .id_token import SignedToken, check_identifying_claims, check_time_claims, require
from .identity_mapper import IdentityMapper, default_identity_mapper
from .key_source import KeySource
from .metadata import SIGNING_ALGORITHMS, check_issuer, check_key_set_url, read_key_set_url
from .outcome import IdentityRejected
from .remote_document import RemoteDocument

__all__ = ["JWTBearerVerifier"]

logger = logging.getLogger(__name__)
ACCESS_JWT = "at+jwt"  # RFC 9068, section 2.1
METADATA_AGE = 3600.0


class JWTBearerVerifier:
    """Takes JWT access tokens (RFC 9068) of the authorization server `issuer` that are meant for `audience`.

    `audience`: this server's resource identifier, or several, as they stand in `aud`; compared byte for byte, always. A
    token for a path below the public URL opens the handlers of that `resource` only, any other opens all.
    `jwks_uri`: where the keys lie, if not where the issuer's metadata says. `algorithms`: the signatures accepted, none
    of them symmetric. `identity_mapper(claims, scopes)` makes the user of the claims. `leeway`: seconds by which clocks
    may differ. `timeout`: seconds for any one call. Raises `ConfigurationError` for values that cannot work.
    """

    def __init__(
        self,
        *,
        issuer: str,
        audience: str | Collection[str],
        jwks_uri: str | None = None,
        algorithms: Collection[str] = SIGNING_ALGORITHMS,
        identity_mapper: IdentityMapper = default_identity_mapper,
        leeway: float = 5.0,
        timeout: float = 5.0,
        clock: Clock | None = None,
    ) -> None:
        check_issuer(issuer)
        if jwks_uri is not None:
            check_key_set_url(jwks_uri, issuer=issuer)
        self._audiences = frozenset((audience,)) if isinstance(audience, str) else frozenset(audience)
        if not self._audiences or "" in self._audiences:
            raise ConfigurationError("audience is empty: a token for whomever would open this server")
        self._algorithms = frozenset(algorithms)
        if not self._algorithms or not self._algorithms <= SIGNING_ALGORITHMS:
            raise ConfigurationError(f"algorithms must be among {', '.join(sorted(SIGNING_ALGORITHMS))}")
        if not 0 <= leeway <= 300:
            raise ConfigurationError("leeway is between 0 and 300 seconds")  # RFC 9068, section 4: a few minutes
        if not 0 < timeout < math.inf:
            raise ConfigurationError("timeout must be above zero and finite")
        self.issuer = issuer
        self._jwks_uri = jwks_uri
        self._identity_mapper = identity_mapper
        self._leeway = leeway
        self._timeout = timeout
        self._clock = clock or SystemClock()
        self._http = HTTPClient(self._clock)
        self._metadata = RemoteDocument(
            f"metadata of {issuer}", self._find_keys, clock=self._clock, max_age=METADATA_AGE
        )
        self._keys = KeySource(self._load_key_set, clock=self._clock)

    async def start(self) -> None:
        """Reads the issuer's metadata. One that cannot be reached is a warning: the first token tries again.

        Raises `ConfigurationError` where the metadata is another issuer's, or has no keys that may be used.
        """
        try:
            await self._metadata.reload()
        except ProviderUnavailableError as error:
            logger.warning("%s cannot be reached; its tokens will try again: %s", self.issuer, error.reason)

    async def close(self) -> None:
        """Cancels what is loading and closes all connections. Twice is once."""
        await self._metadata.close()
        await self._keys.close()
        await self._http.aclose()

    def recognizes(self, token: Secret) -> bool:
        """Whether the token says that it is a JWT of this issuer."""
        parts = token.reveal().split(".")
        if len(parts) != 3:
            return False
        try:
            claims = parse_json(urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
        except (binascii.Error, ValueError):
            return False
        return isinstance(claims, dict) and claims.get("iss") == self.issuer

    async def verify(self, token: Secret) -> VerifiedBearer:
        """The rules of RFC 9068, section 4. Raises `InvalidTokenError`, or `ProviderUnavailableError` where the keys
        cannot be had."""
        try:
            signed = SignedToken.parse(token, self._algorithms, explicit_type=ACCESS_JWT)
            # One without a type may be an ID token.
            require(signed.token_type == ACCESS_JWT, "not the type of an access token")
            return self._read(signed.verify(await self._keys.find(signed.header)))
        except IdentityRejected as error:
            raise InvalidTokenError(reason=error.reason) from None

    def _read(self, claims: Mapping[str, Any]) -> VerifiedBearer:
        audience = self._audiences.intersection(check_identifying_claims(claims, issuer=self.issuer))
        require(bool(audience), "another audience")
        now = self._clock.time()
        expires_at = claims.get("exp")
        if isinstance(expires_at, int | float) and 0 < expires_at <= now - self._leeway:
            raise ExpiredTokenError(reason="expired")
        check_time_claims(claims, now=now, leeway=self._leeway)
        client_id, scope = claims.get("client_id"), claims.get("scope", "")
        require(isinstance(client_id, str) and 0 < len(client_id) <= 2048 and client_id.isprintable(), "no client_id")
        require(isinstance(scope, str), "a scope that is no string")
        # Bound to a key that a bare bearer does not prove to hold (RFC 9449, section 7.2; RFC 8705, section 3).
        require("cnf" not in claims, "a confirmation key")
        return VerifiedBearer(
            identity=self._identity_mapper(claims, frozenset(str(scope).split())),
            client_id=str(client_id),
            audience=tuple(sorted(audience)),
            issued_at=claims["iat"],
            expires_at=claims["exp"],
            usable_until=claims["exp"] + self._leeway,
        )

    async def _find_keys(self) -> str:
        if self._jwks_uri is not None:
            return self._jwks_uri
        document = await fetch_metadata(self._http, self.issuer, timeout=self._timeout)
        return read_key_set_url(document, issuer=self.issuer)

    async def _load_key_set(self) -> Mapping[str, Any]:
        try:
            url = await self._metadata.get()
        except ConfigurationError as error:
            # It could not be reached at the start, and now shows itself to be the wrong one.
            logger.error("tokens of %s cannot be verified: %s", self.issuer, error)  # noqa: TRY400 - the text says all
            raise ProviderUnavailableError(reason=str(error)) from error
        return await fetch_document(self._http, url, "key set", timeout=self._timeout)
