"""Which log messages a session of the 2025 revisions wants. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from mcp_types import LoggingLevel

__all__ = ["is_wanted"]

_LEVELS: tuple[str, ...] = get_args(LoggingLevel)  # from the least severe on


def is_wanted(level: str | None, params: Mapping[str, Any] | None) -> bool:
    """Whether a `notifications/message` with these parameters is severe enough; without a level all are."""
    said = (params or {}).get("level")
    if level not in _LEVELS or said not in _LEVELS:
        return True
    return _LEVELS.index(said) >= _LEVELS.index(level)
