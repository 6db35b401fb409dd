"""The servers under load, each a process of its own: `python -m tests.benchmarks.servers NAME`.

Prints one line of JSON when it listens, and ends at SIGINT.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import hashlib
import json
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext, suppress
from typing import Any

from motor.motor_asyncio import AsyncIOMotorClient
from pymongo import AsyncMongoClient
from tornado.httpserver import HTTPServer
from tornado.iostream import StreamClosedError
from tornado.netutil import bind_sockets
from tornado.web import Application, HTTPError, RequestHandler

from tornado_sse_auth import (
    Keyring,
    MongoSessionStore,
    NotFoundHandler,
    OAuthProvider,
    SSEAuthenticationMiddleware,
    SSEAuthMixin,
    StatsDMetrics,
)
from tornado_sse_auth.metrics import Metrics
from tornado_sse_auth.stores import MemorySessionStore, SessionStore
from tornado_sse_auth.testing import RecordingMetrics

ANSWER = {"price": 42, "symbol": "TRN"}
EVENT = {"symbol": "TRN", "price": 42.5, "marker": "fan-out"}
PAGE = 4096
DUE_SCOPES = "offline_access content:read"


# -- without us --------------------------------------------------------------------------------------------------------


class Bare(RequestHandler):
    """A handler that asks nobody."""

    def get(self) -> None:
        self.write(ANSWER)


class ByHand(RequestHandler):
    """What one writes in an afternoon: hash the cookie, look the session up, compare two times."""

    async def prepare(self) -> None:
        digest = hashlib.sha256((self.get_cookie("sid") or "").encode()).digest()
        session = await self.settings["sessions"].find_one({"digest": digest, "status": "active"})
        now = time.time()
        if session is None or session["expires_at"] < now or session["idle_expires_at"] < now:
            raise HTTPError(401)
        self.current_user = session["user"]

    def get(self) -> None:
        self.write(ANSWER)


class BareStream(RequestHandler):
    """A stream as the Tornado documentation would have it."""

    async def get(self) -> None:
        self.set_header("Content-Type", "text/event-stream")
        self.set_header("Cache-Control", "no-store")
        self.write(": hello\n\n")
        await self.flush()
        self.gone = asyncio.Event()
        self.settings["streams"].add(self)
        await self.gone.wait()

    def on_connection_close(self) -> None:
        self.settings["streams"].discard(self)
        self.gone.set()


class BarePublish(RequestHandler):
    """The loop of `write` and `flush`; the event is encoded once here too."""

    async def post(self) -> None:
        self.settings["number"] += 1
        chunk = f"id: {self.settings['number']}\ndata: {json.dumps(EVENT)}\n\n".encode()
        for stream in list(self.settings["streams"]):
            stream.write(chunk)
            try:
                stream.flush()
            except StreamClosedError:
                self.settings["streams"].discard(stream)


# -- with us -----------------------------------------------------------------------------------------------------------


class Protected(SSEAuthMixin, RequestHandler):
    """The same handler, authenticated."""

    def get(self) -> None:
        self.write(ANSWER)


class ProtectedStream(SSEAuthMixin, RequestHandler):
    """The same stream, authenticated."""

    async def get(self) -> None:
        async with self.event_stream() as stream:
            await stream.follow("prices")


class Publish(RequestHandler):
    """To all streams."""

    async def post(self) -> None:
        await self.settings["sse_auth"].events.publish("prices", EVENT)


class Usage(RequestHandler):
    """What this process has used so far; outside of what is compared."""

    def get(self) -> None:
        with open("/proc/self/statm") as statm:
            resident = int(statm.read().split()[1]) * PAGE
        self.write({"cpu": time.process_time(), "memory": resident})


class Timings(RequestHandler):
    """The timers of this process, by name."""

    def get(self) -> None:
        metrics: RecordingMetrics = self.settings["sse_auth"].observations.sink
        found: dict[str, list[float]] = {}
        for name, seconds in metrics.timings:
            found.setdefault(name, []).append(seconds)
        self.write(found)

    def delete(self) -> None:
        self.settings["sse_auth"].observations.sink.timings.clear()


class CheckProvider(RequestHandler):
    """Asks the provider now, as the health check does each ten seconds."""

    async def post(self) -> None:
        await self.settings["sse_auth"].provider.check()


# -- one function for each server --------------------------------------------------------------------------------------

Made = tuple[list[Any], dict[str, Any], Callable[[], AbstractAsyncContextManager[list[str]]]]


def bare(arguments: argparse.Namespace, url: str) -> Made:
    """Tornado alone."""

    @asynccontextmanager
    async def started() -> AsyncIterator[list[str]]:
        yield ["none=1"] * arguments.sessions

    rules = [("/", Bare), ("/stream", BareStream), ("/-/publish", BarePublish)]
    return rules, {"streams": set(), "number": 0}, started


def by_hand(arguments: argparse.Namespace, url: str) -> Made:
    """A `prepare()` with one Motor `find_one`."""
    client: Any = AsyncIOMotorClient(arguments.mongo)
    sessions = client[arguments.database]["by_hand"]

    @asynccontextmanager
    async def started() -> AsyncIterator[list[str]]:
        credentials = [os.urandom(32).hex() for _ in range(arguments.sessions)]
        ends = time.time() + 3600
        await sessions.create_index("digest")
        await sessions.insert_many(
            {
                "digest": hashlib.sha256(credential.encode()).digest(),
                "status": "active",
                "user": f"u{number}",
                "scopes": ["content:read"],
                "expires_at": ends,
                "idle_expires_at": ends,
            }
            for number, credential in enumerate(credentials)
        )
        yield [f"sid={credential}" for credential in credentials]
        client.close()

    return [("/", ByHand)], {"sessions": sessions}, started


def protected(arguments: argparse.Namespace, url: str, store: SessionStore, **options: Any) -> Made:
    """The whole framework over a store, with metrics sent to a socket that somebody reads."""
    metrics: Metrics = StatsDMetrics("127.0.0.1", arguments.statsd) if arguments.statsd else RecordingMetrics()
    auth = SSEAuthenticationMiddleware(store, public_url=url, metrics=metrics, max_streams_per_user=10_000, **options)

    @asynccontextmanager
    async def started() -> AsyncIterator[list[str]]:
        await auth.start()
        cookies = []
        for number in range(arguments.sessions):
            _, credential = await auth.sessions.create(user_id=f"u{number}", scopes={"content:read"})
            cookies.append(f"{auth.cookie_name}={credential.reveal()}")
        yield cookies
        await auth.close()

    rules = [("/", Protected), ("/stream", ProtectedStream), ("/-/publish", Publish), *auth.routes()]
    return rules, {"sse_auth": auth}, started


def cached(arguments: argparse.Namespace, url: str) -> Made:
    """Sessions in the cache."""
    return protected(arguments, url, MemorySessionStore(), drain_timeout=0.1)


def uncached_motor(arguments: argparse.Namespace, url: str) -> Made:
    """MongoDB asked each time, through Motor."""
    client: Any = AsyncIOMotorClient(arguments.mongo)
    return protected(arguments, url, _store(client, arguments), session_cache_ttl=0)


def uncached_pymongo(arguments: argparse.Namespace, url: str) -> Made:
    """MongoDB asked each time, through PyMongo."""
    client: Any = AsyncMongoClient(arguments.mongo)
    return protected(arguments, url, _store(client, arguments), session_cache_ttl=0)


def cached_pymongo(arguments: argparse.Namespace, url: str) -> Made:
    """MongoDB through PyMongo, asked once for each session."""
    client: Any = AsyncMongoClient(arguments.mongo)
    return protected(arguments, url, _store(client, arguments), session_cache_ttl=600, drain_timeout=0.1)


def everything(arguments: argparse.Namespace, url: str) -> Made:
    """Real MongoDB and a real provider; timers are kept."""
    client: Any = AsyncMongoClient(arguments.mongo)
    provider = OAuthProvider(
        issuer=arguments.issuer,
        client_id="app",
        client_secret="app-secret-app-secret-app-secret",
        scopes="openid offline_access profile content:read",
    )
    rules, settings, started = protected(
        arguments, url, _store(client, arguments), provider=provider, session_cache_ttl=0, drain_timeout=0.1
    )
    return [*rules, ("/-/timings", Timings), ("/-/check", CheckProvider)], settings, started


def one_of_many(arguments: argparse.Namespace, url: str) -> Made:
    """One of several processes on one database, whose sessions somebody else has made."""
    client: Any = AsyncMongoClient(arguments.mongo)
    provider = OAuthProvider(
        issuer=arguments.issuer, client_id="app", client_secret="app-secret-app-secret-app-secret", scopes=DUE_SCOPES
    )
    rules, settings, started = protected(arguments, url, _store(client, arguments), provider=provider)
    return [*rules, ("/-/timings", Timings)], settings, started


def _store(client: Any, arguments: argparse.Namespace) -> SessionStore:
    keyring = Keyring.from_base64(arguments.key) if arguments.key else Keyring.generate()
    return MongoSessionStore(client[arguments.database], keyring)


SERVERS: dict[str, Callable[[argparse.Namespace, str], Made]] = {
    "bare": bare,
    "by_hand": by_hand,
    "cached": cached,
    "uncached_motor": uncached_motor,
    "uncached_pymongo": uncached_pymongo,
    "cached_pymongo": cached_pymongo,
    "everything": everything,
    "one_of_many": one_of_many,
}


async def serve(arguments: argparse.Namespace) -> None:
    """Until cancelled."""
    sockets = bind_sockets(0, "127.0.0.1", backlog=4096)
    port = sockets[0].getsockname()[1]
    rules, settings, started = SERVERS[arguments.name](arguments, f"http://127.0.0.1:{port}")
    async with AsyncExitStack() as stack:
        cookies = await stack.enter_async_context(started())
        application = Application(
            [*rules, ("/-/usage", Usage)],
            default_handler_class=NotFoundHandler if "sse_auth" in settings else None,
            log_function=lambda handler: None,
            **settings,
        )
        server = HTTPServer(application)
        server.add_sockets(sockets)
        print(json.dumps({"port": port, "cookies": cookies}), flush=True)
        await asyncio.Event().wait()


def main() -> None:
    """The process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=sorted(SERVERS))
    parser.add_argument("--mongo")
    parser.add_argument("--database")
    parser.add_argument("--issuer")
    parser.add_argument("--key")
    parser.add_argument("--statsd", type=int)
    parser.add_argument("--sessions", type=int, default=1)
    parser.add_argument("--profile", metavar="FILE")
    arguments = parser.parse_args()
    profile = cProfile.Profile() if arguments.profile else None
    with suppress(KeyboardInterrupt), profile or nullcontext():
        asyncio.run(serve(arguments))
    if profile is not None:
        profile.dump_stats(arguments.profile)


if __name__ == "__main__":
    main()
