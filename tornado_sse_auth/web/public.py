"""What anybody may read: `/auth/client.js` and the protected resource metadata (RFC 9728)."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from importlib import resources

from tornado.web import RequestHandler

from ..errors import NotFoundError
from .handler import ErrorAnswers

__all__ = ["ClientModuleHandler", "ProtectedResourceHandler"]


@cache
def _client_module() -> tuple[bytes, str]:
    source = (resources.files("tornado_sse_auth.web") / "static" / "client.js").read_bytes()
    return source, f'"{hashlib.sha256(source).hexdigest()[:32]}"'


class ClientModuleHandler(ErrorAnswers, RequestHandler):
    """The ES module for pages: `connectStream`."""

    sign_in_redirect = False

    def prepare(self) -> None:
        """Nobody is asked who they are."""
        self.identify_request()

    def get(self) -> None:
        """The module; it may be kept and asked about again."""
        source, etag = _client_module()
        self.set_header("Cache-Control", "public, max-age=0, must-revalidate")
        self.set_header("Content-Type", "text/javascript; charset=utf-8")
        self.set_header("ETag", etag)
        if self.request.headers.get("If-None-Match") == etag:
            self.set_status(304)
            self.finish()
            return
        self.finish(source)


class ProtectedResourceHandler(ErrorAnswers, RequestHandler):
    """Which credentials a protected resource takes, and where clients get them (RFC 9728, section 3). The document at
    the root names the first resource: clients that know no other place look there."""

    sign_in_redirect = False

    def prepare(self) -> None:
        """Nobody is asked who they are; pages of any origin may read it, without the browser's credentials."""
        self.identify_request()
        self.clear_header("Access-Control-Allow-Credentials")
        self.set_header("Access-Control-Allow-Origin", "*")

    def options(self, path: str | None = None) -> None:
        """The preflight of a page: clients send `MCP-Protocol-Version` along."""
        self.set_header("Access-Control-Allow-Methods", "GET")
        self.set_header("Access-Control-Allow-Headers", "Authorization, Content-Type, MCP-Protocol-Version")
        self.set_header("Access-Control-Max-Age", "7200")
        self.set_status(204)
        self.finish()

    def get(self, path: str | None = None) -> None:
        """The metadata as JSON. 404 for a path that is no protected resource."""
        auth = self.sse_auth
        resources = auth.protected_resources
        if path is None:
            path = next(iter(resources), "")
        elif path not in resources:
            raise NotFoundError()
        document: dict[str, object] = {"resource": f"{auth.options.public_url}{path}"}
        if auth.authorization_servers:
            document["authorization_servers"] = list(auth.authorization_servers)
        if resources.get(path):
            document["scopes_supported"] = list(resources[path])
        document["bearer_methods_supported"] = ["header"]
        self.set_header("Content-Type", "application/json; charset=utf-8")
        self.finish(json.dumps(document))
