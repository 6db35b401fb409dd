"""A Tornado server with one handler that opens a stream, on the loopback, and the parts under it."""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

from tests.streams.sse import BOUND
from tornado_sse_auth.clock import Clock, SystemClock
from tornado_sse_auth.errors import AuthError
from tornado_sse_auth.events import EventLog, MemoryEventLog
from tornado_sse_auth.identity import Credential, CredentialKind, Session
from tornado_sse_auth.options import Options
from tornado_sse_auth.sessions.requirements import NO_REQUIREMENTS, Requirements
from tornado_sse_auth.streams import ChannelHub, EventStream, StreamRegistry
from tornado_sse_auth.testing import RecordingMetrics

Body = Callable[[EventStream], Awaitable[None]]


def digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def credential(secret: str, expires_at: float, kind: CredentialKind = CredentialKind.COOKIE) -> Credential:
    return Credential(digest=digest(secret), kind=kind, created_at=0.0, expires_at=expires_at)


def make_session(user: str, now: float, **changes: Any) -> Session:
    """A session of `user`, a day long, with the credential `cookie`."""
    values: dict[str, Any] = {
        "id": f"session of {user}",
        "user_id": user,
        "created_at": now,
        "last_seen": now,
        "expires_at": now + 86_400,
        "idle_expires_at": now + 86_400,
        "credentials": (credential("cookie", now + 86_400),),
    }
    return Session(**values | changes)


async def until(condition: Callable[[], object]) -> None:
    """Let the loop turn until `condition` holds; fails after a bound."""
    async with asyncio.timeout(BOUND):
        while not condition():  # noqa: ASYNC110 - any condition, of parts that have no event for it
            await asyncio.sleep(0.005)


async def follow(stream: EventStream) -> None:
    await stream.follow("news")


class Serving:
    """The running parts. `body` is what the handler does with its stream; `sessions` by user."""

    def __init__(self, options: Options, clock: Clock, log: EventLog) -> None:
        self.options = options
        self.clock = clock
        self.log = log
        self.metrics = RecordingMetrics()
        self.body: Body = follow
        self.stream_class = EventStream
        self.requirements: Requirements = NO_REQUIREMENTS
        self.sessions: dict[str, Session] = {}
        self.ended: set[str] = set()
        self.first: list[str] = []
        self.last: list[str] = []
        self.streams: list[EventStream] = []
        self.left: list[str | None] = []
        self.failures: list[BaseException] = []
        self.hub = ChannelHub(log)
        self.registry = StreamRegistry(
            options,
            self.metrics,
            clock,
            authorization_url=lambda session: f"https://app.example/auth/login?reauth={session.version}",
            is_ended=self.ended.__contains__,
            on_first=lambda session: self.first.append(session.id),
            on_last=self.last.append,
            look_again=lambda session, known_at: None,
        )
        self.port = 0
        self.gate = asyncio.Event()  # `prepare` waits for it
        self.gate.set()
        self.prepared = 0
        self.closed = 0

    def session(self, user: str, **changes: Any) -> Session:
        """The session of `user`, made at first use."""
        if user not in self.sessions:
            self.sessions[user] = make_session(user, self.clock.time(), **changes)
        return self.sessions[user]

    def freed(self) -> bool:
        """Whether no trace of any stream is left."""
        registry = self.registry
        return not (
            len(registry)
            or registry.leaving
            or registry.active_sessions
            or len(self.hub)
            or len(registry._wheel)
            or len(registry._graces)
            or len(registry._expiries)
            or registry._users
            or registry._leaving._heap
            or registry._expiries._heap
        )


class StreamHandler(RequestHandler):
    stream: EventStream | None = None

    def initialize(self, serving: Serving) -> None:
        self.serving = serving

    async def prepare(self) -> None:
        self.serving.prepared += 1
        await self.serving.gate.wait()

    async def get(self) -> None:
        serving = self.serving
        self.stream = serving.stream_class(
            self,
            session=serving.session(self.get_query_argument("user", "ann")),
            credential=digest("cookie"),
            requirements=serving.requirements,
            registry=serving.registry,
            hub=serving.hub,
        )
        async with self.stream as stream:
            serving.streams.append(stream)
            await serving.body(stream)
        serving.left.append(stream.ended)

    post = get

    def on_connection_close(self) -> None:
        self.serving.closed += 1
        if self.stream is not None:
            self.stream.end("client")

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
        self.serving.failures.append(value)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        error = kwargs["exc_info"][1]
        if isinstance(error, AuthError):
            self.set_status(error.status)
        self.finish(str(error))


@asynccontextmanager
async def serving(
    *,
    clock: Clock | None = None,
    log: EventLog | None = None,
    tls: ssl.SSLContext | None = None,
    settings: dict[str, Any] | None = None,
    **options: Any,
) -> AsyncIterator[Serving]:
    """A server on a free loopback port; `options` are those of `Options`."""
    parts = Serving(Options(public_url="http://localhost", **options), clock or SystemClock(), log or MemoryEventLog())
    application = Application(
        [("/", StreamHandler, {"serving": parts})], log_function=lambda handler: None, **settings or {}
    )
    server = HTTPServer(application, ssl_options=tls)
    sockets = bind_sockets(0, "127.0.0.1")
    server.add_sockets(sockets)
    parts.port = sockets[0].getsockname()[1]
    parts.registry.start()
    try:
        yield parts
    finally:
        server.stop()
        await parts.registry.close()
        await parts.hub.close()
        await server.close_all_connections()
