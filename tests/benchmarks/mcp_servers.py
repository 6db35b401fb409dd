"""MCP servers under load, each a process of its own: `python -m tests.benchmarks.mcp_servers NAME`.

One server object for both: ours serves it natively on Tornado, `sdk` as the SDK does, on uvicorn with its bearer check.
Prints one line of JSON when it listens, and ends at SIGINT.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import json
import secrets
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext, suppress
from typing import Any

import uvicorn
from mcp.server.auth.provider import AccessToken
from mcp.server.auth.settings import AuthSettings
from mcp.server.mcpserver import Context, MCPServer
from pydantic import AnyHttpUrl
from pymongo import AsyncMongoClient
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application

from tornado_sse_auth import (
    Keyring,
    MemoryEventLog,
    MemorySessionStore,
    MongoEventLog,
    MongoSessionStore,
    NotFoundHandler,
    SSEAuthenticationMiddleware,
)
from tornado_sse_auth.identity import CredentialKind
from tornado_sse_auth.mcp import EventLogBus, MCPEndpoint


def add_tools(server: MCPServer[Any]) -> None:
    """The same for both."""

    @server.tool()
    async def add(a: int, b: int) -> int:
        """The sum."""
        return a + b

    @server.tool()
    async def announce(ctx: Context[Any, Any]) -> str:
        """Tell who listens that the list of tools changed."""
        await ctx.notify_tools_changed()
        return "announced"


class Tokens:
    """The SDK's token verifier: a dictionary."""

    def __init__(self, tokens: list[str]) -> None:
        self._known = {
            token: AccessToken(token=token, client_id="load", scopes=["content:read"], subject=f"u{number}")
            for number, token in enumerate(tokens)
        }

    async def verify_token(self, token: str) -> AccessToken | None:
        """What is known of it."""
        return self._known.get(token)


async def sdk(listener: socket.socket, arguments: argparse.Namespace) -> None:
    """The SDK on uvicorn."""
    url = AnyHttpUrl(f"http://127.0.0.1:{listener.getsockname()[1]}")
    tokens = [secrets.token_urlsafe(32) for _ in range(arguments.sessions)]
    server: MCPServer[Any] = MCPServer(
        "load",
        token_verifier=Tokens(tokens),
        auth=AuthSettings(issuer_url=url, resource_server_url=url, required_scopes=["content:read"]),
        log_level="WARNING",
    )
    add_tools(server)
    config = uvicorn.Config(server.streamable_http_app(), log_level="warning", access_log=False)
    serving = uvicorn.Server(config)
    told = asyncio.create_task(_tell(serving, listener, tokens))
    await serving.serve([listener])
    await told


async def _tell(serving: uvicorn.Server, listener: socket.socket, tokens: list[str]) -> None:
    while not serving.started:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.01)
    _print(listener, tokens)


@asynccontextmanager
async def storage(arguments: argparse.Namespace) -> AsyncIterator[tuple[Any, Any]]:
    """Store and event log."""
    if not arguments.mongo:
        yield MemorySessionStore(), MemoryEventLog()
        return
    client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(arguments.mongo)
    database = client[arguments.database]
    yield MongoSessionStore(database, Keyring.generate()), MongoEventLog(database)
    await client.close()


async def ours(listener: socket.socket, arguments: argparse.Namespace) -> None:
    """Ours on Tornado."""
    async with storage(arguments) as (store, events):
        auth = SSEAuthenticationMiddleware(
            store,
            events=events,
            public_url=f"http://127.0.0.1:{listener.getsockname()[1]}",
            max_streams_per_user=10_000,
            drain_timeout=0.1,
        )
        await auth.start()
        server: MCPServer[Any] = MCPServer("load", subscriptions=EventLogBus(auth.events), log_level="WARNING")
        add_tools(server)
        endpoint = MCPEndpoint(server, auth=auth)
        application = Application(
            [*endpoint.routes(), *auth.routes()],
            sse_auth=auth,
            default_handler_class=NotFoundHandler,
            log_function=lambda handler: None,
        )
        http = HTTPServer(application, **auth.http_server_options())
        http.add_sockets([listener])
        tokens = []
        for number in range(arguments.sessions):
            _, bearer = await auth.sessions.create(
                user_id=f"u{number}", scopes={"content:read"}, kind=CredentialKind.BEARER
            )
            tokens.append(bearer.reveal())
        _print(listener, tokens)
        await asyncio.Event().wait()


def _print(listener: socket.socket, tokens: list[str]) -> None:
    print(json.dumps({"port": listener.getsockname()[1], "bearers": tokens}), flush=True)


def main() -> None:
    """The process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=["ours", "sdk"])
    parser.add_argument("--mongo")
    parser.add_argument("--database")
    parser.add_argument("--sessions", type=int, default=1)
    parser.add_argument("--profile", metavar="FILE")
    arguments = parser.parse_args()
    (listener,) = bind_sockets(0, "127.0.0.1", backlog=4096)
    profile = cProfile.Profile() if arguments.profile else None
    with suppress(KeyboardInterrupt), profile or nullcontext():
        asyncio.run({"ours": ours, "sdk": sdk}[arguments.name](listener, arguments))
    if profile is not None:
        profile.dump_stats(arguments.profile)


if __name__ == "__main__":
    main()
