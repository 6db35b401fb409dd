"""`AuthorizationServer`: our own OAuth 2.1 endpoints for MCP clients, in front of the provider."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..errors import ConfigurationError
from ..middleware import SSEAuthenticationMiddleware
from ..web.guards import PeerLimiter
from .authorize import AuthorizationEndpoint
from .browser_handler import AuthorizationHandler
from .clients import Client, ClientDirectory
from .endpoint import EndpointHandler
from .grants import GrantManager
from .metadata import MetadataEndpoint
from .metadata_documents import MetadataDocuments
from .registration import RegistrationEndpoint
from .resources import Resources
from .revoke import RevocationEndpoint
from .token import TokenEndpoint

__all__ = ["AuthorizationServer"]


class AuthorizationServer:
    """Lets clients that know nothing of the provider ask its users for grants: registration, consent, tokens.

    `resources` are the paths of the protected resources that grants are for; their handlers have them as `resource`.
    `scopes` are the application's, a mapping of each to what it lets a client do, in words that complete "It will be
    able to:". `clients` are those that need not register. `documents` fetches client metadata documents.
    `max_registrations` are those of one address a minute, `max_clients` those that are kept: beyond it the one that was
    never used and is the oldest goes. Raises `ConfigurationError`.

    ::

        server = AuthorizationServer(auth, resources=("/mcp",), scopes={"notes:read": "read your notes"})
        application = Application([*auth.routes(), *server.routes(), ...], sse_auth=auth)
    """

    def __init__(
        self,
        auth: SSEAuthenticationMiddleware,
        *,
        resources: Iterable[str] = ("/mcp", "/sse"),
        scopes: Mapping[str, str] | Iterable[str] = (),
        clients: Iterable[Client] = (),
        documents: MetadataDocuments | None = None,
        max_registrations: int = 60,
        max_clients: int = 10_000,
    ) -> None:
        if max_registrations <= 0 or max_clients <= 0:
            raise ConfigurationError("max_registrations and max_clients must be above zero")
        issuer, max_json_depth = auth.options.public_url, auth.options.max_json_depth
        known = Resources(issuer, resources, scopes)
        named = tuple(clients)
        if len({client.id for client in named}) < len(named):
            raise ConfigurationError("two clients have the same id")
        for path in known.paths:
            auth.protect(path, scopes=known.scopes, authorization_server=issuer)
        documents = documents or MetadataDocuments(auth.clock, max_json_depth=max_json_depth)
        directory = ClientDirectory(auth.kept, auth.clock, documents, named, max_clients=max_clients)
        grants = GrantManager(
            auth.store,
            auth.sessions,
            access_token_ttl=auth.options.access_token_ttl,
            clock=auth.clock,
            audit=auth.audit,
        )
        attempts = PeerLimiter(max_registrations, auth.clock)
        self._authorize = AuthorizationEndpoint(
            issuer=issuer,
            clients=directory,
            grants=grants,
            resources=known,
            kept=auth.kept,
            provider=auth.provider,
            clock=auth.clock,
            audit=auth.audit,
        )
        self._endpoints = {
            r"/\.well-known/oauth-authorization-server": MetadataEndpoint(issuer, known),
            r"/oauth/register": RegistrationEndpoint(
                directory, attempts, auth.clock, auth.audit, max_json_depth=max_json_depth
            ),
            r"/oauth/token": TokenEndpoint(directory, grants, known, auth.bad_credentials),
            r"/oauth/revoke": RevocationEndpoint(directory, grants, auth.bad_credentials),
        }

    def routes(self) -> list[Any]:
        """Tornado rules for `/oauth/*` and `/.well-known/oauth-authorization-server`."""
        return [
            (r"/oauth/authorize", AuthorizationHandler, {"endpoint": self._authorize}),
            *((path, EndpointHandler, {"endpoint": endpoint}) for path, endpoint in self._endpoints.items()),
        ]
