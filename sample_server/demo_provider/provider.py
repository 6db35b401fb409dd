"""The provider as a server of its own, on a free port of the loopback."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from typing import Any

from joserfc import jwt
from joserfc.jwk import ECKey
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application

from tornado_sse_auth import Clock, ConfigurationError, Secret, SystemClock

from .grants import Grants, IssuedTokens
from .handlers import rules
from .users import DEMO_USERS

__all__ = ["ACCESS_TOKEN_TTL", "DemoProvider"]

ACCESS_TOKEN_TTL = 60.0
ID_TOKEN_TTL = 600
ALGORITHM = "ES256"


class DemoProvider:
    """OpenID Connect with code and PKCE, rotating refresh tokens and reuse detection, for one client.

    `redirect_uris` are compared byte for byte. Access tokens are opaque and live `access_token_ttl` seconds. Raises
    `ConfigurationError` for less than one second, and for an `address` that is no loopback IP address: there are no
    passwords here.
    """

    def __init__(
        self,
        *,
        client_id: str,
        client_secret: Secret,
        redirect_uris: Collection[str],
        access_token_ttl: float = ACCESS_TOKEN_TTL,
        address: str = "127.0.0.1",
        clock: Clock | None = None,
    ) -> None:
        if not _is_loopback(address):
            raise ConfigurationError("the demo provider has no passwords: it runs on loopback only")
        if access_token_ttl < 1:
            raise ConfigurationError("access_token_ttl is at least 1 second")
        self.client_id = client_id
        self.client_secret = client_secret
        self.redirect_uris = frozenset(redirect_uris)
        self.access_token_ttl = access_token_ttl
        self.issuer = ""
        self._address = address
        self._clock = clock or SystemClock()
        self.grants = Grants(self._clock, access_token_ttl)
        self._key = ECKey.generate_key("P-256", {"use": "sig", "alg": ALGORITHM, "kid": "demo"})
        self._server: HTTPServer | None = None

    async def start(self) -> None:
        """Listen; `issuer` is known afterwards."""
        sockets = bind_sockets(0, self._address)
        host = f"[{self._address}]" if ":" in self._address else self._address
        self.issuer = f"http://{host}:{sockets[0].getsockname()[1]}"
        application = Application(rules(self), log_function=lambda handler: None)
        self._server = HTTPServer(application, max_body_size=16_384, max_header_size=16_384, body_timeout=10.0)
        self._server.add_sockets(sockets)

    async def close(self) -> None:
        """Stop listening. Twice is once."""
        if self._server is not None:
            self._server.stop()
            await self._server.close_all_connections()
            self._server = None

    def metadata(self) -> dict[str, Any]:
        """The discovery document (OpenID Connect Discovery, section 3)."""
        return {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "userinfo_endpoint": f"{self.issuer}/userinfo",
            "revocation_endpoint": f"{self.issuer}/revoke",
            "jwks_uri": f"{self.issuer}/jwks",
            "response_types_supported": ["code"],
            "response_modes_supported": ["query"],
            "grant_types_supported": ["authorization_code", "refresh_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": [ALGORITHM],
            "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
            "code_challenge_methods_supported": ["S256"],
            "authorization_response_iss_parameter_supported": True,
            "request_uri_parameter_supported": False,
            "prompt_values_supported": ["none", "login", "consent", "select_account"],
            "scopes_supported": ["openid", "profile", "offline_access"],
        }

    def key_set(self) -> dict[str, Any]:
        """The public key (RFC 7517, section 5)."""
        return {"keys": [self._key.as_dict(private=False)]}

    def token_answer(self, issued: IssuedTokens) -> dict[str, Any]:
        """The token endpoint's JSON (RFC 6749, section 5.1)."""
        answer: dict[str, Any] = {
            "access_token": issued.access_token,
            "token_type": "Bearer",
            "expires_in": int(self.access_token_ttl),
            "scope": " ".join(sorted(issued.scopes)),
        }
        if issued.refresh_token is not None:
            answer["refresh_token"] = issued.refresh_token
        if "openid" in issued.scopes:
            now = int(self._clock.time())
            claims: dict[str, Any] = {
                "iss": self.issuer,
                "sub": issued.subject,
                "aud": self.client_id,
                "iat": now,
                "exp": now + ID_TOKEN_TTL,
                "sid": issued.sid,
                **DEMO_USERS[issued.subject].claims(issued.scopes),
            }
            if issued.nonce is not None:
                claims["nonce"] = issued.nonce
            answer["id_token"] = jwt.encode({"alg": ALGORITHM, "kid": "demo"}, claims, self._key)
        return answer


def _is_loopback(address: str) -> bool:
    # Addresses only: what a name resolves to is another machine's to say.
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False
