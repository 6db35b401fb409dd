"""Who is behind a call: what tools, resources and prompts may ask while they run."""

from __future__ import annotations

from collections.abc import Iterable
from contextvars import ContextVar
from typing import TYPE_CHECKING

from mcp.shared.exceptions import MCPError

from ..errors import AuthError, ConfigurationError
from ..identity import Secret, UserContext
from .messages import ACCESS_REFUSED

if TYPE_CHECKING:
    from .handler import MCPHandler

__all__ = ["AccessRefused", "current_handler", "current_user", "require", "upstream_access_token"]

_handler: ContextVar[MCPHandler | None] = ContextVar("mcp_handler", default=None)


class AccessRefused(MCPError):  # noqa: N818 - the SDK's name for the base says what it is
    """An `AuthError` on its way through the SDK, which hands an `MCPError` on as it is. Answered with the error's own
    status as long as no byte has left."""

    def __init__(self, error: AuthError) -> None:
        super().__init__(ACCESS_REFUSED, error.public_message)
        self.auth_error = error


def enter(handler: MCPHandler) -> None:
    """From here on, in this task and what it starts, the caller is that of `handler`'s request."""
    _handler.set(handler)


def current_handler() -> MCPHandler:
    """The handler of the request that is being served. Raises `ConfigurationError` outside of one."""
    handler = _handler.get()
    if handler is None:
        raise ConfigurationError("there is no MCP request here: call it from a tool, resource or prompt")
    return handler


def current_user() -> UserContext:
    """The user of the call that is being served, for tools, resources and prompts.

    Raises `ConfigurationError` outside of a call.
    """
    user: UserContext = current_handler().user
    return user


def require(*, scopes: Iterable[str] = (), permissions: Iterable[str] = (), subscription: str | None = None) -> None:
    """Ask the current user for more than `requires()` says of the whole tool, resource or prompt: for one item of many.

    What lacks ends the call with the right answer by itself, the same that a declared requirement gives.
    """
    try:
        current_handler().require(scopes=scopes, permissions=permissions, subscription=subscription)
    except AuthError as error:
        raise AccessRefused(error) from error


async def upstream_access_token(*, min_ttl: float = 30.0) -> Secret:
    """The access token of the current user at the provider, good for `min_ttl` seconds more, refreshed if need be:
    for calling the user's APIs from a tool. Ask anew for every call, keep no copy, and give it to nobody else.

    What it raises ends the call with the right answer by itself: 401 where the user must sign in again, 503 where the
    provider is away.
    """
    try:
        return await current_handler().upstream_access_token(min_ttl=min_ttl)
    except AuthError as error:
        raise AccessRefused(error) from error
