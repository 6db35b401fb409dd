"""Which path is whose."""

from __future__ import annotations

from typing import Any

from ..health import Health
from .account import GrantHandler, LogoutHandler, SessionHandler, SessionsHandler, TokenHandler
from .backchannel_logout import BackChannelLogoutHandler
from .health import HealthHandler, LiveHandler, ReadyHandler
from .public import ClientModuleHandler, ProtectedResourceHandler
from .sign_in import CallbackHandler, LoginHandler

__all__ = ["routes"]


def routes(health: Health, *, sign_in: bool) -> list[Any]:
    """Tornado rules for everything of ours but streams and MCP; `sign_in`: there is a provider to sign in at."""
    rules: list[Any] = [
        (r"/livez", LiveHandler, {"health": health}),
        (r"/readyz", ReadyHandler, {"health": health}),
        (r"/health", HealthHandler, {"health": health}),
        (r"/\.well-known/oauth-protected-resource(/.*)?", ProtectedResourceHandler),
        (r"/auth/client\.js", ClientModuleHandler),
        (r"/auth/logout", LogoutHandler),
        (r"/auth/token", TokenHandler),
        (r"/auth/sessions", SessionsHandler),
        (r"/auth/sessions/([0-9a-f]{32})", SessionHandler),
        (r"/auth/sessions/([0-9a-f]{32})/grants/([0-9a-f]{32})", GrantHandler),
    ]
    if sign_in:
        rules += [
            (r"/auth/login", LoginHandler),
            (r"/auth/callback", CallbackHandler),
            (r"/auth/backchannel-logout", BackChannelLogoutHandler),
        ]
    return rules
