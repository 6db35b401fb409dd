"""The authorization server's metadata (RFC 8414)."""

from __future__ import annotations

from typing import Any

from ..web.responses import Answer
from .client_metadata import AUTH_METHODS, GRANT_TYPES
from .endpoint import Endpoint, EndpointRequest, json_answer
from .resources import OFFLINE_ACCESS, Resources

__all__ = ["MetadataEndpoint", "server_metadata"]


class MetadataEndpoint(Endpoint):
    """Tells clients where everything is."""

    methods = ("GET",)

    def __init__(self, issuer: str, resources: Resources) -> None:
        self._document = server_metadata(issuer, resources)

    async def answer(self, request: EndpointRequest) -> Answer:
        """The document."""
        return json_answer(self._document)


def server_metadata(issuer: str, resources: Resources) -> dict[str, Any]:
    """What this server is and can do. `issuer` is its origin."""
    return {
        "issuer": issuer,
        "authorization_endpoint": f"{issuer}/oauth/authorize",
        "token_endpoint": f"{issuer}/oauth/token",
        "registration_endpoint": f"{issuer}/oauth/register",
        "revocation_endpoint": f"{issuer}/oauth/revoke",
        "scopes_supported": [*resources.scopes, OFFLINE_ACCESS],
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": list(GRANT_TYPES),
        "token_endpoint_auth_methods_supported": list(AUTH_METHODS),
        "revocation_endpoint_auth_methods_supported": list(AUTH_METHODS),
        "code_challenge_methods_supported": ["S256"],
        "authorization_response_iss_parameter_supported": True,
        "client_id_metadata_document_supported": True,
        "protected_resources": list(resources.uris),
    }
