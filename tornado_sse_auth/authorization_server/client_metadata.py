"""What a client says of itself (RFC 7591, section 2): read from JSON of a stranger, and made canonical. Pure."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from authlib.common.urls import is_valid_url

from .errors import InvalidClientMetadataError, InvalidRedirectURIError
from .redirect_uris import check_redirect_uri

__all__ = ["AUTH_METHODS", "GRANT_TYPES", "ClientMetadata", "read_client_metadata", "readable"]

AUTH_METHODS = ("none", "client_secret_post", "client_secret_basic")
GRANT_TYPES = ("authorization_code", "refresh_token")
MAX_REDIRECT_URIS = 20
MAX_NAME = 200
MAX_URL = 1000
PAGES = ("client_uri", "logo_uri", "tos_uri", "policy_uri")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientMetadata:
    """What is kept of a client's metadata. `pages` are the URLs among it, by name."""

    redirect_uris: tuple[str, ...]
    auth_method: str
    grant_types: tuple[str, ...]
    name: str
    pages: Mapping[str, str]

    def document(self) -> dict[str, Any]:
        """The metadata as registered (RFC 7591, section 3.2.1)."""
        named = {"client_name": self.name} if self.name else {}
        return {
            **named,
            **self.pages,
            "redirect_uris": list(self.redirect_uris),
            "grant_types": list(self.grant_types),
            "response_types": ["code"],
            "token_endpoint_auth_method": self.auth_method,
        }


def read_client_metadata(document: Mapping[str, Any], *, default_auth_method: str) -> ClientMetadata:
    """Checks what a client says of itself. Members that nobody here uses are left out (RFC 7591, section 2).

    Raises `InvalidClientMetadataError`, `InvalidRedirectURIError`.
    """
    method = document.get("token_endpoint_auth_method") or default_auth_method
    if not isinstance(method, str) or method not in AUTH_METHODS:
        raise InvalidClientMetadataError(f"token_endpoint_auth_method is one of {', '.join(AUTH_METHODS)}.")
    if _strings(document, "response_types") not in (None, (), ("code",)):
        raise InvalidClientMetadataError("response_types is code.")
    pages = {name: _page(name, document[name]) for name in PAGES if document.get(name)}
    grant_types = _strings(document, "grant_types")
    if grant_types is not None and "authorization_code" not in grant_types:
        raise InvalidClientMetadataError("grant_types has no authorization_code.")
    uris = _strings(document, "redirect_uris")
    if not uris or len(uris) > MAX_REDIRECT_URIS:
        raise InvalidRedirectURIError(f"A client has 1 to {MAX_REDIRECT_URIS} redirect URIs.")
    for uri in uris:
        check_redirect_uri(uri, public=method == "none")
    name = document.get("client_name") or ""
    if not isinstance(name, str) or len(name) > MAX_NAME:
        raise InvalidClientMetadataError(f"client_name is a text of at most {MAX_NAME} characters.")
    return ClientMetadata(
        redirect_uris=tuple(dict.fromkeys(uris)),
        auth_method=method,
        # A client that says nothing is given refresh tokens: most of those that use them do not ask.
        grant_types=tuple(kind for kind in GRANT_TYPES if grant_types is None or kind in grant_types),
        name=readable(name),
        pages=pages,
    )


def readable(text: str) -> str:
    """`text` for people: without control, format and bidirectional characters, which can make it look like another."""
    kept = "".join(char if unicodedata.category(char)[0] not in "CZ" else " " for char in text)
    return " ".join(kept.split())


def _page(name: str, url: object) -> str:
    acceptable = (
        isinstance(url, str)
        and len(url) <= MAX_URL
        and url.isascii()
        and url.isprintable()
        and url.startswith(("https://", "http://"))
        and is_valid_url(url)
    )
    if not acceptable:
        raise InvalidClientMetadataError(f"{name} is not the URL of a page.")
    return str(url)


def _strings(document: Mapping[str, Any], name: str) -> tuple[str, ...] | None:
    value = document.get(name)
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise InvalidClientMetadataError(f"{name} is a list of strings.")
    return tuple(value)
