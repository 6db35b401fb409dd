"""Sessions: from a credential to a user context, and the refresh of one session's tokens."""

from .manager import SessionManager
from .requirements import Requirements
from .token_refresh import TokenRefresher

__all__ = ["Requirements", "SessionManager", "TokenRefresher"]
