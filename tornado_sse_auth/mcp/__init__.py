"""MCP servers behind authenticated Tornado rules. Needs the extra `[mcp]`."""

from .access import requires
from .bus import EventLogBus
from .caller import current_user, upstream_access_token
from .endpoint import MCPEndpoint

__all__ = ["EventLogBus", "MCPEndpoint", "current_user", "requires", "upstream_access_token"]
