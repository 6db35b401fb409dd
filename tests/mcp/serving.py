"""An MCP server behind our endpoint, on a socket of its own, and a client that sees every byte."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import httpx
from mcp.server.mcpserver import MCPServer
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application

from tornado_sse_auth import (
    EventLog,
    MemoryEventLog,
    MemorySessionStore,
    NotFoundHandler,
    Session,
    SessionStore,
    SSEAuthenticationMiddleware,
)
from tornado_sse_auth.identity import CredentialKind
from tornado_sse_auth.mcp import EventLogBus, MCPEndpoint
from tornado_sse_auth.testing import RecordingMetrics

MODERN = "2026-07-28"
META = {
    "io.modelcontextprotocol/protocolVersion": MODERN,
    "io.modelcontextprotocol/clientCapabilities": {},
}
BOUND = 20.0
_NAMED = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}


@dataclass
class MessageStreamReader:
    """An open answer: `messages` as they come; `comments` and `ids` beside them."""

    response: httpx.Response
    lines: AsyncIterator[str]
    ids: list[str] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    retry: int | None = None

    async def next(self) -> dict[str, Any] | None:
        """The next message; None at the end. An event without data (the priming one) is an empty message."""
        data: list[str] | None = None
        async with asyncio.timeout(BOUND):
            async for line in self.lines:
                name, _, value = line.partition(":")
                value = value.removeprefix(" ")
                if name == "id":
                    self.ids.append(value)
                elif name == "event":
                    self.events.append(value)
                elif name == "retry":
                    self.retry = int(value)
                elif name == "data":
                    data = [*(data or []), value]
                elif not line and data is not None:
                    text = "\n".join(data)
                    return json.loads(text) if text else {}
        return None

    async def rest(self) -> list[dict[str, Any]]:
        """Everything until the end."""
        found = []
        while (message := await self.next()) is not None:
            found.append(message)
        return found


class Client:
    """Posts messages as `bearer`; nothing is hidden."""

    def __init__(self, url: str, bearer: str | None) -> None:
        self.url = url
        self.ids = itertools.count(1)
        headers = {"Accept": "application/json, text/event-stream"}
        if bearer is not None:
            headers["Authorization"] = f"Bearer {bearer}"
        self.http = httpx.AsyncClient(base_url=url, headers=headers, timeout=BOUND, trust_env=False)

    def modern(
        self, method: str, params: Mapping[str, Any] | None = None, *, request_id: Any = None, **meta: Any
    ) -> dict[str, Any]:
        """Arguments of `http.request` for a request of 2026-07-28."""
        params = {"_meta": META | {name.replace("__", "/"): value for name, value in meta.items()}, **(params or {})}
        headers = {"MCP-Protocol-Version": MODERN, "Mcp-Method": method}
        if method in _NAMED:
            headers["Mcp-Name"] = str(params[_NAMED[method]])
        body = {
            "jsonrpc": "2.0",
            "id": next(self.ids) if request_id is None else request_id,
            "method": method,
            "params": params,
        }
        return {"method": "POST", "url": "/mcp", "json": body, "headers": headers}

    async def call(self, method: str, params: Mapping[str, Any] | None = None, **meta: Any) -> httpx.Response:
        """A request of 2026-07-28, answered at once or read to its end."""
        return await self.http.request(**self.modern(method, params, **meta))

    async def tool(self, name: str, **arguments: Any) -> httpx.Response:
        """`tools/call` of 2026-07-28."""
        return await self.call("tools/call", {"name": name, "arguments": arguments})

    @asynccontextmanager
    async def stream(self, **request: Any) -> AsyncIterator[MessageStreamReader]:
        """Any request, whose answer is read message by message."""
        async with self.http.stream(**request) as response:
            yield MessageStreamReader(response, response.aiter_lines())

    def listen(self, request_id: Any = "listen-1", **notifications: Any) -> Any:
        """`subscriptions/listen`."""
        return self.stream(
            **self.modern("subscriptions/listen", {"notifications": notifications}, request_id=request_id)
        )


@dataclass
class Running:
    """One process."""

    url: str
    auth: SSEAuthenticationMiddleware
    endpoint: MCPEndpoint
    metrics: RecordingMetrics
    clients: list[Client] = field(default_factory=list)

    async def sign_in(self, user: str = "ann", **session: Any) -> tuple[Session, Client]:
        """A session with a bearer of its own, and a client that presents it."""
        made, secret = await self.auth.sessions.create(user_id=user, kind=CredentialKind.BEARER, **session)
        return made, self.client(secret.reveal())

    def client(self, bearer: str | None) -> Client:
        """A client with any bearer, or none."""
        client = Client(self.url, bearer)
        self.clients.append(client)
        return client


Build = Callable[[SSEAuthenticationMiddleware], MCPServer[Any]]


@asynccontextmanager
async def serving(
    build: Build,
    *,
    store: SessionStore | None = None,
    events: EventLog | None = None,
    endpoint: Mapping[str, Any] | None = None,
    port: int = 0,
    **options: Any,
) -> AsyncIterator[Running]:
    """A started middleware and a listening application around the server that `build` makes of it."""
    sockets = bind_sockets(port, "127.0.0.1")
    url = f"http://127.0.0.1:{sockets[0].getsockname()[1]}"
    metrics = RecordingMetrics()
    auth = SSEAuthenticationMiddleware(
        store or MemorySessionStore(),
        public_url=options.pop("public_url", url),
        allowed_hosts=(url.removeprefix("http://"),),
        events=events or MemoryEventLog(),
        metrics=metrics,
        subscription_levels=("free", "pro"),
        drain_timeout=options.pop("drain_timeout", 0.2),
        **options,
    )
    await auth.start()
    made = MCPEndpoint(build(auth), auth=auth, **(endpoint or {}))
    application = Application(
        [*made.routes(), *auth.routes()],
        sse_auth=auth,
        default_handler_class=NotFoundHandler,
        log_function=lambda handler: None,
    )
    server = HTTPServer(application, **auth.http_server_options())
    server.add_sockets(sockets)
    running = Running(url, auth, made, metrics)
    try:
        yield running
    finally:
        await auth.close()
        for client in running.clients:
            await client.http.aclose()
        server.stop()
        with suppress(TimeoutError):
            await asyncio.wait_for(server.close_all_connections(), 5)


def named(auth: SSEAuthenticationMiddleware, **options: Any) -> MCPServer[Any]:
    """A server without any tool yet, whose changes every process hears of."""
    return MCPServer("tests", subscriptions=EventLogBus(auth.events), **options)


async def endpoint_of(stream: MessageStreamReader) -> str:
    """The data of the first event, which is no message."""
    async for line in stream.lines:
        if line.startswith("data: "):
            return line.removeprefix("data: ")
        if line.startswith("event: "):
            stream.events.append(line.removeprefix("event: "))
    raise AssertionError("the stream ended")


async def until(condition: Callable[[], object]) -> None:
    """Let the loop turn until `condition` holds; fails after a bound."""
    async with asyncio.timeout(BOUND):
        while not condition():  # noqa: ASYNC110 - any condition, of parts that have no event for it
            await asyncio.sleep(0.005)
