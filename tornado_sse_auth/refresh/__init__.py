"""The background refresh."""

from .manager import RefreshManager

__all__ = ["RefreshManager"]
