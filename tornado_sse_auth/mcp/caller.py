"""Who is behind a call: what tools, resources and prompts may ask while they run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from typing import Any, Protocol

from mcp.shared.exceptions import MCPError

from ..errors import AuthError, ConfigurationError
from ..identity import Secret, UserContext
from ..sessions.requirements import Requirements
from .message_stream import MessageStream
from .messages import ACCESS_REFUSED
from .peer import Peer

__all__ = ["AccessRefused", "Caller", "current_caller", "current_user", "require", "upstream_access_token"]


class Caller(Protocol):
    """What runs for a request may ask of the handler that took it. `peer` is None in 2026-07-28; `requirements` are
    what the user must have for as long as a stream of this request is open."""

    peer: Peer | None
    requirements: Requirements

    @property
    def user(self) -> UserContext:
        """As of now."""
        ...

    @property
    def subscription_levels(self) -> tuple[str, ...]:
        """From lowest to highest."""
        ...

    def require(self, *, scopes: Iterable[str], permissions: Iterable[str], subscription: str | None) -> None:
        """Raises `ForbiddenError`."""

    async def upstream_access_token(self, *, min_ttl: float) -> Secret:
        """Raises `AuthError`."""
        ...

    def listen(self, acknowledgment: Mapping[str, Any]) -> MessageStream:
        """A stream that begins with this and stays open. Raises `MCPError` where the transport has none."""
        ...


_caller: ContextVar[Caller | None] = ContextVar("mcp_caller", default=None)


class AccessRefused(MCPError):  # noqa: N818 - the SDK's name for the base says what it is
    """An `AuthError` on its way through the SDK, which hands an `MCPError` on as it is. Answered with the error's own
    status as long as no byte has left."""

    def __init__(self, error: AuthError) -> None:
        super().__init__(ACCESS_REFUSED, error.public_message)
        self.auth_error = error


def enter(caller: Caller) -> None:
    """From here on, in this task and what it starts, this is the caller."""
    _caller.set(caller)


def current_caller() -> Caller:
    """Who is behind the request that is being served. Raises `ConfigurationError` outside of one."""
    caller = _caller.get()
    if caller is None:
        raise ConfigurationError("there is no MCP request here: call it from a tool, resource or prompt")
    return caller


def current_user() -> UserContext:
    """The user of the call that is being served, for tools, resources and prompts.

    Raises `ConfigurationError` outside of a call.
    """
    return current_caller().user


def require(*, scopes: Iterable[str] = (), permissions: Iterable[str] = (), subscription: str | None = None) -> None:
    """Ask the current user for more than `requires()` says of the whole tool, resource or prompt: for one item of many.

    What lacks ends the call with the right answer by itself, the same that a declared requirement gives.
    """
    try:
        current_caller().require(scopes=scopes, permissions=permissions, subscription=subscription)
    except AuthError as error:
        raise AccessRefused(error) from error


async def upstream_access_token(*, min_ttl: float = 30.0) -> Secret:
    """The access token of the current user at the provider, good for `min_ttl` seconds more, refreshed if need be:
    for calling the user's APIs from a tool. Ask anew for every call, keep no copy, and give it to nobody else.

    What it raises ends the call with the right answer by itself: 401 where the user must sign in again, 503 where the
    provider is away.
    """
    try:
        return await current_caller().upstream_access_token(min_ttl=min_ttl)
    except AuthError as error:
        raise AccessRefused(error) from error
