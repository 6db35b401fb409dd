"""The answer of the token endpoint (RFC 6749, section 5): a token set, or what it means for the token sent. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import ProviderUnavailableError
from ..identity import Secret
from .http import Answer
from .outcome import ClientRejected, RefreshRejected, Spent, TransientFailure

__all__ = ["CLIENT_REFUSED", "MAX_LIFETIME", "TokenResponse", "read_refusal", "read_token_answer"]

MAX_LIFETIME = 366 * 86_400.0
# What says that it is this client which is not accepted, whatever it asks for.
CLIENT_REFUSED = frozenset(("invalid_client", "unauthorized_client", "incorrect_client_credentials"))
CLIENT_ERRORS = frozenset(
    (
        "invalid_client",
        "unauthorized_client",
        "unsupported_grant_type",
        "invalid_scope",
        "invalid_request",
        "incorrect_client_credentials",
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenResponse:
    """What the provider gave. `expires_in`: seconds, None where it says nothing of use.

    `refresh_token` is None where the one in use stays. `scopes` is None where the answer is silent: as asked for, or as
    before (RFC 6749, sections 5.1 and 6).
    """

    access_token: Secret
    refresh_token: Secret | None = None
    expires_in: float | None = None
    scopes: frozenset[str] | None = None
    id_token: Secret | None = None


def read_token_answer(answer: Answer, *, presented: Secret | None = None) -> TokenResponse:
    """The token set of `answer`. Raises the failures of `outcome`. `presented`: the refresh token that was sent."""
    document = answer.json_object()
    error = document.get("error") if document is not None else None
    code = error if isinstance(error, str) else None
    if not answer.ok:
        if 400 <= answer.status < 500:
            if code == "invalid_grant":
                raise RefreshRejected("invalid_grant")
            if code in CLIENT_ERRORS:
                raise ClientRejected(f"the token endpoint answered {code}")
        raise TransientFailure(
            f"the token endpoint answered {answer.status}", spent=Spent.UNSPENT, retry_after=answer.retry_after
        )
    # One large provider sends its errors with status 200.
    if code == "bad_refresh_token":
        raise RefreshRejected("bad_refresh_token")
    if code == "incorrect_client_credentials":
        raise ClientRejected(f"the token endpoint answered {code}")
    if document is None:
        raise _unreadable("no JSON object", answer)
    access_token = _token(document, "access_token", answer)
    if access_token is None:
        raise _unreadable("no access token", answer)
    if document.get("token_type") is not None and str(document["token_type"]).lower() != "bearer":
        raise _unreadable("a token type other than Bearer", answer)
    refresh_token = _token(document, "refresh_token", answer)
    id_token = document.get("id_token")
    return TokenResponse(
        access_token=access_token,
        refresh_token=None if refresh_token == presented else refresh_token,
        expires_in=_lifetime(document.get("expires_in")),
        scopes=_scopes(document.get("scope"), answer),
        id_token=Secret(id_token) if isinstance(id_token, str) and id_token else None,
    )


def read_refusal(answer: Answer) -> str:
    """The error code of the answer to a request that cannot succeed. Raises `ProviderUnavailableError` where it is no
    refusal in the words of RFC 6749, section 5.2: then something else than a working token endpoint has answered."""
    document = answer.json_object()
    code = document.get("error") if document is not None else None
    if isinstance(code, str) and answer.status < 500 and answer.status != 429:
        return code
    raise ProviderUnavailableError(
        reason=f"token endpoint: answer {answer.status}{' without an OAuth error' if code is None else ''}",
        retry_after=answer.retry_after or 1.0,
    )


def _unreadable(what: str, answer: Answer) -> TransientFailure:
    return TransientFailure(
        f"the token endpoint answered {answer.status} with {what}", spent=Spent.UNKNOWN, retry_after=answer.retry_after
    )


def _token(document: Mapping[str, Any], name: str, answer: Answer) -> Secret | None:
    value = document.get(name)
    if value is None or value == "":
        return None
    # RFC 6749, appendix A.12 and A.17: printable ASCII; anything else would break out of the header it is sent in.
    if not isinstance(value, str) or not value.isascii() or not value.isprintable():
        raise _unreadable(f"a malformed {name.replace('_', ' ')}", answer)
    return Secret(value)


def _lifetime(value: object) -> float | None:
    # A life of nothing or less is taken as silence: believed, it would mean one refresh after the other.
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 16:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
        return None
    return float(max(1, min(value, MAX_LIFETIME)))


def _scopes(value: object, answer: Answer) -> frozenset[str] | None:
    if value is None:
        return None
    if isinstance(value, str):
        return frozenset(value.split())
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return frozenset(value)
    raise _unreadable("a malformed scope", answer)
