"""The provider's metadata (OpenID Connect Discovery 1.0, RFC 8414): where it lies and what of it we accept. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, urlsplit

from authlib.oauth2.rfc8414 import get_well_known_url as oauth_well_known_url
from authlib.oidc.discovery import get_well_known_url as openid_well_known_url

from ..errors import ConfigurationError
from ..options import is_loopback_host

__all__ = [
    "SIGNING_ALGORITHMS",
    "ProviderMetadata",
    "check_issuer",
    "check_key_set_url",
    "read_key_set_url",
    "read_metadata",
    "well_known_urls",
]

# Asymmetric signatures only. "none" and HS* are no choice that a document from the network may make (RFC 8725, 3.1).
SIGNING_ALGORITHMS = frozenset(
    ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519")
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderMetadata:
    """What of the metadata is used; every URL is checked.

    `authentication_methods` and `prompts` are None where the document is silent. `iss_parameter`: the provider names
    itself in its authorization answers (RFC 9207).
    """

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str | None
    userinfo_endpoint: str | None
    revocation_endpoint: str | None
    end_session_endpoint: str | None
    authentication_methods: frozenset[str] | None
    signing_algorithms: frozenset[str]
    iss_parameter: bool
    prompts: frozenset[str] | None = None

    def prompt(self, wanted: str) -> str | None:
        """The value of `prompt` nearest to `wanted`, "login" or "select_account", that the provider knows: one that it
        does not is an error at some. Where its metadata is silent, as it may be, "login": OpenID Connect Core, section
        3.1.2.1, defines both, and more of them know this one. Who signs in anew may do so as somebody else."""
        known = self.prompts if self.prompts is not None else frozenset(("login",))
        return next((value for value in (wanted, "login", "select_account") if value in known), None)


def check_issuer(issuer: str) -> None:
    """Raises `ConfigurationError` unless `issuer` is one (RFC 8414, section 2), https beyond loopback."""
    parts = _split("issuer", issuer)
    if parts.query or parts.fragment:
        raise ConfigurationError(f"the issuer {issuer!r} must have neither query nor fragment")
    if "|" in issuer:
        # It ends the issuer in a user id: of two that differ after it, each could name the other's users (SEC-03).
        raise ConfigurationError(f"the issuer {issuer!r} has a |, which no URL has")
    if parts.scheme == "http" and not is_loopback_host(parts.hostname or ""):
        raise ConfigurationError(f"the issuer {issuer!r} must be https beyond loopback: secrets travel to it")


def well_known_urls(issuer: str) -> tuple[str, str]:
    """Where the metadata may lie: OpenID Connect (appended to the path), then RFC 8414 (inserted before it)."""
    return openid_well_known_url(issuer, external=True), oauth_well_known_url(issuer, external=True)


def read_metadata(document: Mapping[str, Any], *, issuer: str, openid: bool) -> ProviderMetadata:
    """Checks what the provider says of itself. Raises `ConfigurationError` with a text for the operator.

    `openid`: ID tokens will be asked for, which need keys and an asymmetric algorithm.
    """
    _check_own(document, issuer)
    jwks_uri = _endpoint(document, "jwks_uri", issuer)
    algorithms = _strings(document, "id_token_signing_alg_values_supported")
    accepted = SIGNING_ALGORITHMS if algorithms is None else SIGNING_ALGORITHMS & algorithms
    if openid and jwks_uri is None:
        raise ConfigurationError("the provider's metadata has no jwks_uri: its ID tokens cannot be verified")
    if openid and not accepted:
        raise ConfigurationError("the provider signs ID tokens with no asymmetric algorithm; HS* and none are refused")
    return ProviderMetadata(
        issuer=issuer,
        authorization_endpoint=_required(document, "authorization_endpoint", issuer),
        token_endpoint=_required(document, "token_endpoint", issuer),
        jwks_uri=jwks_uri,
        userinfo_endpoint=_endpoint(document, "userinfo_endpoint", issuer),
        revocation_endpoint=_endpoint(document, "revocation_endpoint", issuer),
        end_session_endpoint=_endpoint(document, "end_session_endpoint", issuer),
        authentication_methods=_strings(document, "token_endpoint_auth_methods_supported"),
        signing_algorithms=accepted,
        iss_parameter=document.get("authorization_response_iss_parameter_supported") is True,
        prompts=_strings(document, "prompt_values_supported"),
    )


def read_key_set_url(document: Mapping[str, Any], *, issuer: str) -> str:
    """Where the keys of `issuer` lie, by its metadata. Raises `ConfigurationError`."""
    _check_own(document, issuer)
    return _required(document, "jwks_uri", issuer)


def check_key_set_url(url: str, *, issuer: str) -> None:
    """Raises `ConfigurationError` for a `url` that the metadata of `issuer` could not name, either."""
    _endpoint({"jwks_uri": url}, "jwks_uri", issuer)


def _check_own(document: Mapping[str, Any], issuer: str) -> None:
    if document.get("issuer") != issuer:
        # RFC 8414, section 3.3: identical, code point by code point, or somebody else's endpoints get our secrets.
        raise ConfigurationError(f"the provider's metadata names another issuer than {issuer!r}: they must be equal")


def _required(document: Mapping[str, Any], name: str, issuer: str) -> str:
    url = _endpoint(document, name, issuer)
    if url is None:
        raise ConfigurationError(f"the provider's metadata has no {name}")
    return url


def _endpoint(document: Mapping[str, Any], name: str, issuer: str) -> str | None:
    url = document.get(name)
    if url is None:
        return None
    if not isinstance(url, str):
        raise ConfigurationError(f"the provider's {name} is not a URL")
    parts = _split(name, url)
    if parts.fragment:
        raise ConfigurationError(f"the provider's {name} has a fragment")  # RFC 6749, sections 3.1 and 3.2
    if parts.scheme == "http":
        # A provider on the network has no business naming plain services of this machine.
        issuer_host = urlsplit(issuer).hostname or ""
        if not (is_loopback_host(parts.hostname or "") and is_loopback_host(issuer_host)):
            raise ConfigurationError(f"the provider's {name} is plain http: only a provider on loopback may do that")
    return url


def _split(name: str, url: str) -> SplitResult:
    if not url.isascii() or any(character <= " " or character in '\x7f\\"<>' for character in url):
        raise ConfigurationError(f"the provider's {name} has characters that no URL has")
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise ConfigurationError(f"the provider's {name} is not a URL") from error
    if parts.scheme not in ("https", "http") or not parts.hostname or parts.username is not None:
        raise ConfigurationError(f"the provider's {name} is no https URL of a host")
    return parts


def _strings(document: Mapping[str, Any], name: str) -> frozenset[str] | None:
    values = document.get(name)
    if values is None:
        return None
    if not isinstance(values, list):
        raise ConfigurationError(f"the provider's {name} is not a list")
    return frozenset(value for value in values if isinstance(value, str))
