"""What all handlers of one server object share."""

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
from ..web.guards import PeerLimiter
from .access import AccessRules
from .bus import EventLogBus
from .calls_by_session import CallsBySession
from .handshake import Silent
from .lifespan import Lifespan
from .listening import Listening
from .live_sessions import LiveSessions
from .request_state import share_request_state
from .session_methods import add_session_methods
from .sse_peer import SSEPeer
from .standing import StandingStreams
from .tracing import trace_where_collected

__all__ = ["HostedServer"]


class HostedServer:
    """A server object as this process serves it: its rules, who is connected, what is under way. The parameters are
    those of `MCPEndpoint`."""

    def __init__(
        self,
        server: MCPServer[Any] | Server[Any],
        *,
        auth: SSEAuthenticationMiddleware,
        requires: Mapping[tuple[str, str], Mapping[str, Any]],
        bus: SubscriptionBus | None,
        max_sessions_per_user: int,
        max_handshakes: int,
    ) -> None:
        if max_sessions_per_user <= 0 or max_handshakes <= 0:
            raise ConfigurationError("max_sessions_per_user and max_handshakes must be above zero")
        self.auth = auth
        self.server: Server[Any] = server._lowlevel_server if isinstance(server, MCPServer) else server
        self.rules = AccessRules(server, requires, auth.options.subscription_levels)
        self.bus = self._shared_bus(server) if bus is None else bus
        share_request_state(self.server, auth.store.keyring)
        trace_where_collected(self.server)
        self.listening = Listening(self.bus, self.rules)
        if self.server.get_request_handler("subscriptions/listen") is not None:
            self.server.add_request_handler(
                "subscriptions/listen", SubscriptionsListenRequestParams, self.listening.__call__
            )
        if isinstance(server, MCPServer):
            self._refuse_unknown_tools(server)
        self.standing = StandingStreams(self.bus, self.rules, auth.options.subscription_levels)
        self.sessions = LiveSessions(auth, self.make_runner, max_sessions_per_user=max_sessions_per_user)
        self.sse_peers: dict[str, SSEPeer] = {}
        self.calls = CallsBySession()
        auth.sessions.watch.add(self.calls)
        self.handshakes = PeerLimiter(max_handshakes, auth.clock)
        add_session_methods(self.server)
        self._lifespan: Lifespan | None = None
        self._in_headers: dict[str, tuple[Mapping[str, Any], bool]] = {}

    async def close(self) -> None:
        """Let go of sessions, leave the server's lifespan. The middleware calls it when it closes; twice is once."""
        await self.sessions.close()
        lifespan, self._lifespan = self._lifespan, None
        if lifespan is not None:
            await lifespan.close()

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

    def _shared_bus(self, server: MCPServer[Any] | Server[Any]) -> SubscriptionBus:
        """A server object brings a bus of its own process, unless it was given another."""
        if not isinstance(server, MCPServer):
            return EventLogBus(self.auth.events, self.server.name)
        if isinstance(server._subscriptions, InMemorySubscriptionBus):
            server._subscriptions = EventLogBus(self.auth.events, self.server.name)
        return server._subscriptions

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
