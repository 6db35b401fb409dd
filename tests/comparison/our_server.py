"""Ours: `python -m tests.comparison.our_server PORT ISSUER PUBLIC_PORT MONGODB_URI DATABASE`.

Both processes of it have the public URL of the first.
"""

from __future__ import annotations

import asyncio
import hashlib
import sys
from typing import Any

from mcp.server.mcpserver import MCPServer
from pymongo import AsyncMongoClient
from tornado.web import Application

from tornado_sse_auth import (
    JWTBearerVerifier,
    Keyring,
    MongoEventLog,
    MongoSessionStore,
    SSEAuthenticationMiddleware,
)
from tornado_sse_auth.mcp import EventLogBus, MCPEndpoint, requires


async def main(port: int, issuer: str, public_port: int, mongodb_uri: str, name: str) -> None:
    """Serve until ended."""
    client: Any = AsyncMongoClient(mongodb_uri)
    public_url = f"http://127.0.0.1:{public_port}"
    auth = SSEAuthenticationMiddleware(
        MongoSessionStore(client[name], Keyring([hashlib.sha256(name.encode()).digest()])),
        public_url=public_url,
        events=MongoEventLog(client[name]),
        allowed_hosts=[f"127.0.0.1:{port}"],
        bearer_verifiers=[JWTBearerVerifier(issuer=issuer, audience=f"{public_url}/mcp")],
    )
    server: MCPServer[Any] = MCPServer("compared", subscriptions=EventLogBus(auth.events))

    @server.tool(meta=requires(scopes={"a:read", "b:read"}))
    def whoami() -> str:
        return "somebody"

    await auth.start()
    auth.protect("/mcp", scopes=["a:read", "b:read"])
    application = Application([*MCPEndpoint(server, auth=auth).routes(), *auth.routes()], sse_auth=auth)
    application.listen(port, "127.0.0.1", **auth.http_server_options())
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4], sys.argv[5]))
