"""The mixin, and the handlers of the paths that are ours."""

from .handler import NotFoundHandler
from .mixin import SSEAuthMixin
from .routes import routes

__all__ = ["NotFoundHandler", "SSEAuthMixin", "routes"]
