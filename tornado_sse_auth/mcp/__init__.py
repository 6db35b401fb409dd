"""MCP servers behind authenticated Tornado rules. Needs the extra `[mcp]`."""

from .access import requires
from .bus import EventLogBus
from .caller import current_user, require, upstream_access_token
from .endpoint import MCPEndpoint

__all__ = ["EventLogBus", "MCPEndpoint", "current_user", "require", "requires", "upstream_access_token"]
