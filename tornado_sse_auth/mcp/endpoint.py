"""`MCPEndpoint`: an `mcp` server object behind Tornado rules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mcp.server.lowlevel.server import Server
from mcp.server.mcpserver import MCPServer
from mcp.server.subscriptions import SubscriptionBus

from ..middleware import SSEAuthenticationMiddleware
from .hosted_server import HostedServer
from .legacy_sse import MessagesHandler, SSEHandler
from .streamable_http import StreamableHTTPHandler

__all__ = ["MCPEndpoint"]


class MCPEndpoint:
    """Serves an `mcp` server object, the SDK's `MCPServer` or low-level `Server`, to clients of any revision::

        server = MCPServer("prices")
        endpoint = MCPEndpoint(server, auth=auth)
        application = Application([*endpoint.routes(), *auth.routes()], sse_auth=auth)

    `requires` says by method and name (or URI template) what a request asks of its user, as `requires()` in the `meta`
    of a tool does: the only way for a low-level server. `max_sessions_per_user` are sessions of the 2025 revisions that
    one user has in the store, beyond which the one used longest ago ends; `max_handshakes` those that a user begins in
    a minute. Raises `ConfigurationError` for a rule of another kind, or a limit that is not above zero.

    What such an object keeps to its process is shared by all that have the store: `bus`, where changes are published,
    is an `EventLogBus` where the server has none of its own, and the `requestState` that clients carry is sealed with
    the store's keys where the server would have used a key of this process.
    """

    def __init__(
        self,
        server: MCPServer[Any] | Server[Any],
        *,
        auth: SSEAuthenticationMiddleware,
        requires: Mapping[tuple[str, str], Mapping[str, Any]] | None = None,
        bus: SubscriptionBus | None = None,
        max_sessions_per_user: int = 1000,
        max_handshakes: int = 120,
    ) -> None:
        self.hosted = HostedServer(
            server,
            auth=auth,
            requires=requires or {},
            bus=bus,
            max_sessions_per_user=max_sessions_per_user,
            max_handshakes=max_handshakes,
        )
        self.bus = self.hosted.bus
        auth.on_close(self.close)

    def routes(self) -> list[Any]:
        """Tornado rules for `/mcp`, and for `/sse` and `/messages`, the transport of 2024-11-05. The latter is for one
        process: a message must reach the one that has the stream."""
        arguments = {"hosted": self.hosted}
        return [
            (r"/mcp", StreamableHTTPHandler, arguments),
            (r"/sse", SSEHandler, arguments),
            (r"/messages", MessagesHandler, arguments),
        ]

    async def close(self) -> None:
        """Let go of sessions, leave the server's lifespan. The middleware calls it when it closes; twice is once."""
        await self.hosted.close()
