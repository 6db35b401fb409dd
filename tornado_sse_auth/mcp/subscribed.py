"""How many resources one client may ask to be told of. Pure."""

from __future__ import annotations

from collections.abc import Collection

from mcp.shared.exceptions import MCPError
from mcp_types.jsonrpc import INVALID_PARAMS

__all__ = ["check_watched"]

# Of one session or stream: a rule is looked up for each, and each is kept.
MAX_WATCHED = 1000
MAX_CHARACTERS = 64 * 1024  # of all of them


def check_watched(uris: Collection[str]) -> None:
    """Raises `MCPError` for more than can be minded."""
    if len(uris) > MAX_WATCHED or sum(map(len, uris)) > MAX_CHARACTERS:
        raise MCPError(INVALID_PARAMS, "These are too many resources to watch: unsubscribe from some first.")
