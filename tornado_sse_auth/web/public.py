"""What anybody may read: `/auth/client.js` and the protected resource metadata (RFC 9728)."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from importlib import resources

from tornado.web import RequestHandler

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
    """Which credentials this server takes (RFC 9728, section 3)."""

    sign_in_redirect = False

    def prepare(self) -> None:
        """Nobody is asked who they are; pages of any origin may read it."""
        self.identify_request()
        self.set_header("Access-Control-Allow-Origin", "*")

    def get(self) -> None:
        """The metadata as JSON."""
        document: dict[str, object] = {"resource": self.sse_auth.options.public_url}
        if self.sse_auth.authorization_servers:
            document["authorization_servers"] = list(self.sse_auth.authorization_servers)
        document["bearer_methods_supported"] = ["header"]
        self.set_header("Content-Type", "application/json; charset=utf-8")
        self.finish(json.dumps(document))
