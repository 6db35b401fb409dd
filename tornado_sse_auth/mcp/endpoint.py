"""`MCPEndpoint`: an `mcp` server object behind Tornado rules."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mcp.server.connection import Connection, NotifyOnlyOutbound
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel.server import Server
from mcp.server.mcpserver import MCPServer
from mcp.server.runner import ServerRunner
from mcp.server.subscriptions import InMemorySubscriptionBus, SubscriptionBus
from mcp.shared.exceptions import MCPError
from mcp.shared.inbound import X_MCP_HEADER_KEY
from mcp_types import CallToolRequestParams, SubscriptionsListenRequestParams
from mcp_types.jsonrpc import INVALID_PARAMS

from ..errors import ConfigurationError
from ..middleware import SSEAuthenticationMiddleware
from ..sessions.requirements import NO_REQUIREMENTS
from ..stores import MemorySessionStore
from .access import AccessRules
from .bus import EventLogBus
from .handler import MCPHandler
from .handshake import Silent
from .legacy_sse import MessagesHandler, SSEHandler, SSEPeer
from .lifespan import Lifespan
from .listening import Listening
from .live_sessions import LiveSessions
from .session_methods import add_session_methods
from .standing import StandingStreams
from .streamable_http import StreamableHTTPHandler

__all__ = ["MCPEndpoint"]


class MCPEndpoint:
    """Serves an `mcp` server object, the SDK's `MCPServer` or low-level `Server`, to clients of any revision::

        server = MCPServer("prices", subscriptions=EventLogBus(auth.events))
        endpoint = MCPEndpoint(server, auth=auth)
        application = Application([*endpoint.routes(), *auth.routes()], sse_auth=auth)

    `requires` says by method and name (or URI template) what a request asks of its user, as `requires()` in the `meta`
    of a tool does: the only way for a low-level server. `bus` is where a low-level server publishes what changed; an
    `MCPServer` has its own. Raises `ConfigurationError` for a server whose state would stay in one of many processes.
    """

    def __init__(
        self,
        server: MCPServer[Any] | Server[Any],
        *,
        auth: SSEAuthenticationMiddleware,
        requires: Mapping[tuple[str, str], Mapping[str, Any]] | None = None,
        bus: SubscriptionBus | None = None,
    ) -> None:
        self.auth = auth
        self.server: Server[Any] = server._lowlevel_server if isinstance(server, MCPServer) else server
        self.rules = AccessRules(server, requires or {}, auth.options.subscription_levels)
        if bus is None:
            bus = server._subscriptions if isinstance(server, MCPServer) else EventLogBus(auth.events)
        if isinstance(bus, InMemorySubscriptionBus) and not isinstance(auth.store, MemorySessionStore):
            raise ConfigurationError(
                "this server tells changes to subscribers of its own process only, and the store is for many: "
                "MCPServer(..., subscriptions=EventLogBus(auth.events))"
            )
        self.listening = Listening(bus, self.rules)
        if self.server.get_request_handler("subscriptions/listen") is not None:
            self.server.add_request_handler(
                "subscriptions/listen", SubscriptionsListenRequestParams, self.listening.__call__
            )
        if isinstance(server, MCPServer):
            self._refuse_unknown_tools(server)
        self.standing = StandingStreams(bus, self.rules, auth.options.subscription_levels)
        self.sessions = LiveSessions(auth, self.make_runner)
        self.sse_peers: dict[str, SSEPeer] = {}
        add_session_methods(self.server)
        self._lifespan: Lifespan | None = None
        self._in_headers: dict[str, tuple[Mapping[str, Any], bool]] = {}
        auth.on_close(self.close)

    def routes(self) -> list[Any]:
        """Tornado rules for `/mcp`, and for `/sse` and `/messages`, the transport of 2024-11-05. The latter is for one
        process: a message must reach the one that has the stream."""
        arguments = {"endpoint": self}
        return [
            (r"/mcp", StreamableHTTPHandler, arguments),
            (r"/sse", SSEHandler, arguments),
            (r"/messages", MessagesHandler, arguments),
        ]

    async def close(self) -> None:
        """Let go of sessions, leave the server's lifespan. The middleware calls it when it closes; twice is once."""
        await self.sessions.close()
        lifespan, self._lifespan = self._lifespan, None
        if lifespan is not None:
            await lifespan.close()

    # -- for the handlers ------------------------------------------------------------------------------------------

    async def lifespan(self) -> Any:
        """What the server's lifespan yields; entered at the first request."""
        if self._lifespan is None:
            self._lifespan = Lifespan(self.server)
        return await self._lifespan.state()

    async def runner(self) -> ServerRunner[Any]:
        """The kernel for one handshake."""
        state = await self.lifespan()
        return ServerRunner(self.server, Connection.for_loop(NotifyOnlyOutbound(Silent({}, None))), state)

    def make_runner(self, connection: Connection) -> ServerRunner[Any]:
        """The kernel for a connection, once the lifespan was entered."""
        assert self._lifespan is not None  # noqa: S101 - handlers enter it before they ask for a session
        return ServerRunner(self.server, connection, self._lifespan.yielded)

    def check_access(self, handler: MCPHandler, method: str, params: Mapping[str, Any] | None) -> None:
        """Raises `ForbiddenError` for what the user lacks, before anything is dispatched; a stream that is opened for
        the request ends when it lacks later."""
        needed = self.rules.needed(method, params)
        if needed is not NO_REQUIREMENTS:
            handler.requirements = self.rules.both(handler.requirements, needed)
            needed.check(handler.user, self.auth.options.subscription_levels)

    def repeated_in_headers(self, tool: Any) -> Mapping[str, Any] | None:
        """The schema of the tool's arguments, where any of them is repeated in a header (SEP-2243) and the server can
        tell it without being asked for the list."""
        lookup = self.server.get_tool_input_schema
        schema = lookup(tool) if lookup is not None and isinstance(tool, str) else None
        if schema is None:
            return None
        known = self._in_headers.get(tool)
        if known is None or known[0] is not schema:  # a tool may be replaced while the server runs
            known = self._in_headers[tool] = schema, X_MCP_HEADER_KEY in json.dumps(schema, default=str)
        return schema if known[1] else None

    def _refuse_unknown_tools(self, server: MCPServer[Any]) -> None:
        """The SDK answers a call of an unknown tool with a result; the specification wants an error (server/tools,
        "Error Handling")."""
        entry = self.server.get_request_handler("tools/call")
        if entry is None:
            return
        handler = entry.handler

        async def call_tool(ctx: ServerRequestContext[Any, Any], params: CallToolRequestParams) -> Any:
            if server._tool_manager.get_tool(params.name) is None:
                raise MCPError(INVALID_PARAMS, f"Unknown tool: {params.name}")
            return await handler(ctx, params)

        self.server.add_request_handler("tools/call", CallToolRequestParams, call_tool)
