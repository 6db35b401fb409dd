"""Which redirect URIs a client may register, and whether one in a request is a registered one. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import SplitResult, unquote, urlsplit

from .errors import InvalidRedirectURIError

__all__ = ["check_redirect_uri", "is_loopback", "is_private_scheme", "is_registered", "redirect_host"]

MAX_LENGTH = 2000
# What RFC 3986 lets a URI consist of; whatever else one holds, parsers repair in their own ways.
URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[A-Za-z0-9\-._~:/?\[\]@!$&'()*+,;=%]+")
# Schemes that a browser opens itself: no application is behind them.
BROWSER_SCHEMES = frozenset({"javascript", "data", "file", "blob", "vbscript", "about", "ws", "wss", "filesystem"})
LOOPBACK_HOSTS = frozenset({"127.0.0.1", "[::1]", "localhost"})


def check_redirect_uri(uri: str, *, public: bool) -> None:
    """Raises `InvalidRedirectURIError` unless `uri` may be registered: https, http to loopback, and for a public client
    a private-use scheme (RFC 8252, sections 7.1 to 7.3); no fragment, user, wildcard or dot segment."""
    if len(uri) > MAX_LENGTH or not URI.fullmatch(uri):
        raise InvalidRedirectURIError("A redirect URI is malformed.")
    try:
        parts = urlsplit(uri)
        _ = parts.port
    except ValueError:
        raise InvalidRedirectURIError("A redirect URI is malformed.") from None
    if "@" in parts.netloc or "*" in uri:
        raise InvalidRedirectURIError("A redirect URI has no user and no wildcard.")
    if any(segment in (".", "..") for segment in re.split(r"[/\\]", unquote(parts.path))):
        raise InvalidRedirectURIError("A redirect URI has no dot segments.")
    scheme = parts.scheme.lower()
    if scheme in ("http", "https"):
        if not parts.hostname:
            raise InvalidRedirectURIError("A redirect URI has no host.")
        if scheme == "http" and not _loopback(parts):
            raise InvalidRedirectURIError("A redirect URI is https beyond loopback.")
    elif scheme in BROWSER_SCHEMES or not public:
        raise InvalidRedirectURIError("The scheme of a redirect URI is not acceptable.")


def is_registered(uri: str, registered: Iterable[str]) -> bool:
    """Whether `uri` is one of `registered`, byte for byte; on loopback the port is free (RFC 8252, section 7.3)."""
    registered = tuple(registered)
    if uri in registered:
        return True
    template = _without_port(uri)
    return template is not None and any(template == _without_port(one) for one in registered)


def is_loopback(uri: str) -> bool:
    """Whether the redirect goes to a program on the user's own machine, any of which may listen there."""
    return _loopback(urlsplit(uri))


def is_private_scheme(uri: str) -> bool:
    """Whether it goes to whichever application has claimed the scheme."""
    return urlsplit(uri).scheme not in ("http", "https")


def redirect_host(uri: str) -> str:
    """Where the redirect goes, for people: host and port, or the private-use scheme with what names the application."""
    parts = urlsplit(uri)
    if parts.scheme in ("http", "https"):
        return parts.netloc
    return f"{parts.scheme}://{parts.netloc}" if parts.netloc else f"{parts.scheme}:"


def _loopback(parts: SplitResult) -> bool:
    host = parts.netloc[: parts.netloc.rfind(":")] if parts.port is not None else parts.netloc
    return parts.scheme == "http" and host in LOOPBACK_HOSTS


def _without_port(uri: str) -> str | None:
    """A loopback URI without its port, all other bytes as they are; None for any other."""
    if not URI.fullmatch(uri):
        return None
    try:
        parts = urlsplit(uri)
        if not (uri.startswith("http://") and _loopback(parts)):
            return None
    except ValueError:
        return None
    if parts.port is None:
        return uri
    host = parts.netloc[: parts.netloc.rfind(":")]
    return f"http://{host}{uri[len('http://') + len(parts.netloc) :]}"
