"""Logout tokens (OpenID Connect Back-Channel Logout 1.0): what makes one trustworthy, and whom it concerns. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .id_token import LEEWAY, check_time_claims
from .outcome import IdentityRejected

__all__ = ["LOGOUT_JWT", "LogoutToken"]

LOGOUT_JWT = "logout+jwt"
LOGOUT_EVENT = "http://schemas.openid.net/event/backchannel-logout"
# Seconds between the provider's logout and our hearing of it; section 2.4 advises two minutes for the token's life.
MAX_AGE = 300.0
MAX_NAME = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class LogoutToken:
    """A genuine logout token. `subject` or `sid`, the provider's own session id, or both say who is signed out.

    `jti` may be used once; `until` (epoch seconds) is when the token is refused for its age alone.
    """

    subject: str | None
    sid: str | None
    jti: str
    until: float

    @classmethod
    def read(cls, claims: Mapping[str, Any], *, issuer: str, client_id: str, now: float) -> LogoutToken:
        """From verified claims, by the rules of section 2.6. Raises `IdentityRejected`. `now`: epoch seconds."""
        _require(claims.get("iss") == issuer, "another issuer")
        audience = claims.get("aud")
        _require(client_id in (audience if isinstance(audience, list) else [audience]), "another audience")
        check_time_claims(claims, now=now)
        _require(claims["iat"] > now - MAX_AGE - LEEWAY, "a time of issue long past")
        events = claims.get("events")
        _require(isinstance(events, dict) and isinstance(events.get(LOGOUT_EVENT), dict), "no logout event")
        # It would be an ID token, which anybody may have who signed in.
        _require("nonce" not in claims, "a nonce")
        subject, sid, jti = (_name(claims, name) for name in ("sub", "sid", "jti"))
        _require(subject is not None or sid is not None, "neither subject nor session")
        if jti is None:
            raise IdentityRejected(reason="the logout token has no jti")
        return cls(subject=subject, sid=sid, jti=jti, until=claims["iat"] + MAX_AGE + LEEWAY)


def _name(claims: Mapping[str, Any], name: str) -> str | None:
    value = claims.get(name)
    proper = isinstance(value, str) and 0 < len(value) <= MAX_NAME and value.isprintable()
    _require(value is None or proper, f"no proper {name}")
    return value


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise IdentityRejected(reason=f"the logout token has {what}")
