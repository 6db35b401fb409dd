"""The mixin, and the handlers of the paths that are ours."""

from .bounded_server import BoundedHTTPServer
from .handler import NotFoundHandler
from .mixin import SSEAuthMixin
from .routes import routes

__all__ = ["BoundedHTTPServer", "NotFoundHandler", "SSEAuthMixin", "routes"]
