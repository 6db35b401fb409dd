"""An OAuth 2.1 authorization server for MCP clients, in front of the provider."""

from .clients import Client
from .metadata_documents import MetadataDocuments
from .server import AuthorizationServer

__all__ = ["AuthorizationServer", "Client", "MetadataDocuments"]
