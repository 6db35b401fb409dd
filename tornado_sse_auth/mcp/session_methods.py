"""What a session of the 2025 revisions asks to be told: methods that a server object need not bring itself."""

from __future__ import annotations

from typing import Any

from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel.server import Server
from mcp.shared.exceptions import MCPError
from mcp_types import EmptyResult, SetLevelRequestParams, SubscribeRequestParams, UnsubscribeRequestParams
from mcp_types.jsonrpc import METHOD_NOT_FOUND

from .caller import current_caller
from .peer import Peer
from .subscribed import check_watched

__all__ = ["add_session_methods"]


def add_session_methods(server: Server[Any]) -> None:
    """Add `logging/setLevel`, `resources/subscribe` and `resources/unsubscribe`, unless the server has its own."""

    async def set_level(ctx: ServerRequestContext[Any, Any], params: SetLevelRequestParams) -> EmptyResult:
        await _peer().set_level(params.level)
        return EmptyResult()

    async def subscribe(ctx: ServerRequestContext[Any, Any], params: SubscribeRequestParams) -> EmptyResult:
        peer, uri = _peer(), str(params.uri)
        check_watched({*peer.uris, uri})
        await peer.watch(uri, on=True)
        return EmptyResult()

    async def unsubscribe(ctx: ServerRequestContext[Any, Any], params: UnsubscribeRequestParams) -> EmptyResult:
        await _peer().watch(str(params.uri), on=False)
        return EmptyResult()

    if server.get_request_handler("logging/setLevel") is None:
        server.add_request_handler("logging/setLevel", SetLevelRequestParams, set_level)
    if server.get_request_handler("resources/read") is not None:
        if server.get_request_handler("resources/subscribe") is None:
            server.add_request_handler("resources/subscribe", SubscribeRequestParams, subscribe)
        if server.get_request_handler("resources/unsubscribe") is None:
            server.add_request_handler("resources/unsubscribe", UnsubscribeRequestParams, unsubscribe)


def _peer() -> Peer:
    peer = current_caller().peer
    if peer is None:
        raise MCPError(METHOD_NOT_FOUND, "Method not found")
    return peer
