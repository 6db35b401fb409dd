"""The protected resources that grants are for (RFC 8707), and the scopes that they know. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

from ..errors import ConfigurationError, InvalidRequestError
from ..oauth.sign_in import read_scope
from .errors import InvalidScopeError, InvalidTargetError

__all__ = ["OFFLINE_ACCESS", "Resources"]

OFFLINE_ACCESS = "offline_access"


class Resources:
    """`public_url` is the origin, `paths` are those of the resources, the first being the one that a client means who
    asks at the root. `scopes` are the application's, with what each lets a client do in words for people."""

    def __init__(self, public_url: str, paths: Iterable[str], scopes: Mapping[str, str] | Iterable[str]) -> None:
        self.paths = tuple(paths)
        self.uris = tuple(f"{public_url}{path}" for path in self.paths)
        self.scopes = dict(scopes) if isinstance(scopes, Mapping) else {scope: scope for scope in scopes}
        if not self.paths or not all(path.startswith("/") and len(path) > 1 for path in self.paths):
            raise ConfigurationError("resources are paths such as /mcp, at least one")

    def audience(self, resource: str | None) -> tuple[str, ...]:
        """The resource that a client names; all of them for one that names none, as clients of 2025-03-26 do. Scheme
        and host in any case, one slash at the end is tolerated, nothing else. Raises `InvalidTargetError`."""
        if resource is None:
            return self.uris
        try:
            parts = urlsplit(resource)
        except ValueError:
            raise InvalidTargetError() from None
        origin = f"{parts.scheme}://{parts.netloc}"
        if not resource.lower().startswith(origin.lower()):
            raise InvalidTargetError()
        uri = (origin.lower() + resource[len(origin) :]).removesuffix("/")
        if uri not in self.uris:
            raise InvalidTargetError(reason=f"resource {resource[:200]!r}")
        return (uri,)

    def requested(self, scope: str | None) -> frozenset[str] | None:
        """The scopes that a client asks for; None: whatever there is. Raises `InvalidScopeError`."""
        if scope is None:
            return None
        try:
            scopes = read_scope(scope)
        except InvalidRequestError:
            raise InvalidScopeError("The scope is malformed.") from None
        if not scopes <= self.scopes.keys() | {OFFLINE_ACCESS}:
            raise InvalidScopeError("A scope is unknown.", reason=f"scopes {sorted(scopes)}")
        return scopes

    def grantable(self, requested: frozenset[str] | None, held: frozenset[str]) -> frozenset[str]:
        """What a grant is for: asked for, offered, and held by the user's session. `offline_access` says only that the
        client would like refresh tokens, and is granted as it is asked."""
        offered = held & self.scopes.keys()
        return offered if requested is None else requested & (offered | {OFFLINE_ACCESS})

    def missing(self, requested: frozenset[str] | None, held: frozenset[str]) -> frozenset[str]:
        """The scopes asked for that the session lacks."""
        return frozenset() if requested is None else (requested & self.scopes.keys()) - held
