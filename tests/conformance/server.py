"""`python -m tests.conformance.server --port P`: everything the conformance suite asks about, behind authentication.

Prints `bearer TOKEN`, a credential for it, and `listening URL`; ends at SIGINT or SIGTERM. With `--mongodb-uri`
sessions and events are kept there.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import warnings
from contextlib import AsyncExitStack
from typing import Any

from mcp.server.mcpserver import MCPServer
from mcp.shared.exceptions import MCPDeprecationWarning
from pymongo import AsyncMongoClient
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application

from tests.conformance import asking, content
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


def build_server(auth: SSEAuthenticationMiddleware) -> MCPServer[Any]:
    """The SDK's server object with all fixtures."""
    server: MCPServer[Any] = MCPServer(
        "conformance", version="1", subscriptions=EventLogBus(auth.events), log_level="WARNING"
    )
    content.add(server)
    asking.add(server)
    return server


async def main() -> None:
    """Serve until a signal comes."""
    parser = argparse.ArgumentParser(prog="python -m tests.conformance.server", description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--mongodb-uri", help="a replica set; in memory without")
    parser.add_argument("--mongodb-database", default="conformance")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", MCPDeprecationWarning)  # of what the older revisions have, which is served here
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    sockets = bind_sockets(arguments.port, "127.0.0.1")
    port = sockets[0].getsockname()[1]
    async with AsyncExitStack() as stack:
        store: Any = MemorySessionStore()
        events: Any = MemoryEventLog()
        if arguments.mongodb_uri:
            client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(arguments.mongodb_uri)
            stack.push_async_callback(client.close)
            database = client[arguments.mongodb_database]
            store, events = MongoSessionStore(database, Keyring.generate()), MongoEventLog(database)
        # The suite comes through a proxy on a port of its own, by either name of loopback.
        auth = SSEAuthenticationMiddleware(
            store,
            events=events,
            public_url=f"http://127.0.0.1:{port}",
            allowed_hosts=("localhost", f"localhost:{port}"),
            allowed_origins=(f"http://localhost:{port}",),
        )
        await auth.start()
        stack.push_async_callback(auth.close)
        endpoint = MCPEndpoint(build_server(auth), auth=auth)
        application = Application(
            [*endpoint.routes(), *auth.routes()],
            sse_auth=auth,
            default_handler_class=NotFoundHandler,
            log_function=lambda handler: None,
        )
        server = HTTPServer(application, **auth.http_server_options())
        server.add_sockets(sockets)
        stack.callback(server.stop)
        _, bearer = await auth.sessions.create(user_id="conformance", kind=CredentialKind.BEARER)
        print(f"bearer {bearer.reveal()}", flush=True)
        print(f"listening http://127.0.0.1:{port}/mcp", flush=True)
        await stopped.wait()
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(server.close_all_connections(), 5)


if __name__ == "__main__":
    asyncio.run(main())
