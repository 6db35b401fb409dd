"""Credentials: read from a request's headers, made for a client. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from ..errors import InvalidRequestError, InvalidTokenError
from ..identity import Credential, CredentialKind, Secret

__all__ = ["PresentedCredential", "cookie_name", "issue", "read_bearer", "read_cookie"]

# What `Secret.random` makes: 32 bytes in URL-safe base64. Anything else is not worth a question to the store.
_OURS = re.compile(r"[A-Za-z0-9_-]{43}")
_B64TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # RFC 6750, section 2.1
_MAX_BEARER = 8192


class PresentedCredential(NamedTuple):
    """What a request carries, and its SHA-256. `ours` is False for a well-formed bearer that cannot be one of this
    server's."""

    secret: Secret
    digest: bytes
    kind: CredentialKind
    ours: bool


def cookie_name(secure: bool, port: int | None) -> str:
    """The session cookie's name: `__Host-session` under https; on plain http one of the port's own, since ports
    share cookies."""
    return "__Host-session" if secure else f"sse_auth_{port or 80}"


def read_bearer(authorization: Sequence[str]) -> PresentedCredential | None:
    """The bearer in the values of the `Authorization` header; None where none of them is of that scheme.

    Raises `InvalidRequestError` for anything repeated or malformed.
    """
    if not authorization:
        return None
    value = authorization[0]
    scheme, _, token = value.partition(" ")
    if len(authorization) > 1:
        raise InvalidRequestError("The Authorization header is repeated.")
    if scheme.lower() != "bearer":
        if "bearer" in value.lower():  # two headers that some proxy has joined
            raise InvalidRequestError("The Authorization header is malformed.")
        return None
    token = token.strip(" ")
    if len(token) > _MAX_BEARER or not _B64TOKEN.fullmatch(token):
        raise InvalidRequestError("The bearer credential is malformed.")
    return _presented(token, CredentialKind.BEARER, _OURS.fullmatch(token) is not None)


def read_cookie(header: str | None, name: str) -> PresentedCredential | None:
    """The session cookie in the value of the `Cookie` header, or None.

    Raises `InvalidRequestError` when it is there twice with different values, and `InvalidTokenError` when it cannot
    be one of ours.
    """
    if not header or name not in header:
        return None
    values = [value.strip(' \t"') for value in _cookies_called(name).findall(header)]
    if len(values) > 1 and any(value != values[0] for value in values):
        raise InvalidRequestError("The session cookie is repeated.")
    found = values[0] if values else ""
    if not found:
        return None
    if not _OURS.fullmatch(found):
        raise InvalidTokenError(reason="the cookie is not of our form")
    return _presented(found, CredentialKind.COOKIE, True)


@lru_cache(maxsize=64)
def _cookies_called(name: str) -> re.Pattern[str]:
    """What finds the values of the cookies of that name: one call, however many others there are."""
    return re.compile(rf"(?:^|;)[ \t]*{re.escape(name)}[ \t]*=([^;]*)")


def _presented(value: str, kind: CredentialKind, ours: bool) -> PresentedCredential:
    secret = Secret(value)
    return PresentedCredential(secret, secret.digest(), kind, ours)


def issue(
    kind: CredentialKind,
    *,
    now: float,
    expires_at: float,
    parent: bytes | None = None,
    grant: str | None = None,
    scopes: frozenset[str] | None = None,
    audience: tuple[str, ...] = (),
) -> tuple[Secret, Credential]:
    """A new credential: the secret for the client, and the half that is stored."""
    secret = Secret.random()
    return secret, Credential(
        digest=secret.digest(),
        kind=kind,
        created_at=now,
        expires_at=expires_at,
        parent=parent,
        grant=grant,
        scopes=scopes,
        audience=audience,
    )
