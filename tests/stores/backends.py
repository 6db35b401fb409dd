"""What the suites run on: memory, and one MongoDB database through either driver."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

from motor.motor_asyncio import AsyncIOMotorClient
from pymongo import AsyncMongoClient, MongoClient

from tornado_sse_auth.identity import Credential, CredentialKind, Grant, Secret, Session, SpentRefreshToken, TokenSet
from tornado_sse_auth.sealing import Keyring
from tornado_sse_auth.stores import MemorySessionStore, MongoSessionStore, SessionStore
from tornado_sse_auth.testing import ManualClock

MOTOR, PYMONGO = "mongo-motor", "mongo-pymongo"


def connect(stack: AsyncExitStack, driver: str, uri: str, name: str) -> Any:
    """A database through that driver, whose client ends with `stack`."""
    client: Any = AsyncIOMotorClient(uri) if driver == MOTOR else AsyncMongoClient(uri)

    async def close() -> None:
        # Motor's is a plain call.
        if (closing := client.close()) is not None:
            await closing

    stack.push_async_callback(close)
    return client[name]


def now_clock() -> ManualClock:
    """At the present time: the TTL monitor of MongoDB removes what has ended by its own clock."""
    return ManualClock(time.time())


@dataclass(kw_only=True)
class Backend:
    """A session store as several processes see it; `clock` is the injected one of them all."""

    clock: ManualClock
    stack: AsyncExitStack

    async def open(self) -> SessionStore:
        """The started store of one more process."""
        raise NotImplementedError

    async def end_lease(self, session_id: str) -> None:
        """Let the time of the lease that runs pass, as nobody renews it."""
        raise NotImplementedError

    async def damage(self, session_id: str) -> bool:
        """Make the session one that cannot be read. False where none can be."""
        raise NotImplementedError


@dataclass(kw_only=True)
class MemoryBackend(Backend):
    """There is but one process."""

    store: MemorySessionStore = field(init=False)

    def __post_init__(self) -> None:
        self.store = MemorySessionStore(clock=self.clock)

    async def open(self) -> SessionStore:
        return self.store

    async def end_lease(self, session_id: str) -> None:
        session = await self.store.find(session_id)
        assert session is not None
        self.clock.advance(session.refresh.until - self.clock.time())

    async def damage(self, session_id: str) -> bool:
        return False


@dataclass(kw_only=True)
class MongoBackend(Backend):
    """Processes that share a database. Leases follow the server's clock, which no test can move."""

    uri: str
    name: str
    driver: str
    keyring: Keyring = field(default_factory=Keyring.generate)

    async def open(self) -> MongoSessionStore:
        store = MongoSessionStore(connect(self.stack, self.driver, self.uri, self.name), self.keyring, clock=self.clock)
        self.stack.push_async_callback(store.close)
        await store.start()
        return store

    async def end_lease(self, session_id: str) -> None:
        await self.change(session_id, {"$set": {"refresh.until": time.time() - 0.001}})

    async def damage(self, session_id: str) -> bool:
        await self.change(session_id, {"$set": {"claims": 5}})
        return True

    async def change(self, session_id: str, update: Any) -> None:
        """Tamper with a row."""

        def run() -> None:
            with MongoClient[dict[str, Any]](self.uri) as client:
                assert client[self.name]["sessions"].update_one({"_id": session_id}, update).matched_count == 1

        await asyncio.to_thread(run)


class Heard:
    """A listener that remembers and can be waited for."""

    def __init__(self) -> None:
        self.news: list[Any] = []
        self._more = asyncio.Event()

    def __call__(self, news: Any) -> None:
        self.news.append(news)
        self._more.set()

    async def until(self, enough: Callable[[Sequence[Any]], bool], seconds: float = 10.0) -> list[Any]:
        """What was heard, once that is enough."""
        async with asyncio.timeout(seconds):
            while not enough(self.news):
                self._more.clear()
                await self._more.wait()
        return self.news


def make_session(clock: ManualClock, name: str = "s1", **more: Any) -> Session:
    """A session with every field set, one credential and a token set of version 1."""
    now = clock.time()
    values: dict[str, Any] = {
        "id": name,
        "user_id": "https://issuer.example|u1",
        "created_at": now,
        "last_seen": now,
        "expires_at": now + 1000.0,
        "idle_expires_at": now + 500.0,
        "scopes": frozenset({"a", "b"}),
        "permissions": frozenset({"trade"}),
        "subscription": "pro",
        "claims": {"$name": "A. B", "nested.name": [1, 2.5, None, {"$gt": ""}], "big": 2**70},
        "credentials": (make_credential(clock),),
        "grants": (make_grant(clock),),
        "token_set": make_token_set(clock),
        "token_version": 1,
        "sid": "sid-1",
        "enriched_at": now,
        "client": "curl",
        **more,
    }
    return Session(**values)


def make_credential(clock: ManualClock, parent: bytes | None = None) -> Credential:
    """A credential of random digest with every field set, good for 100 s."""
    now = clock.time()
    return Credential(
        digest=os.urandom(32),
        kind=CredentialKind.COOKIE,
        created_at=now,
        expires_at=now + 100,
        parent=parent,
        grant="g1",
        scopes=frozenset({"a"}),
        audience=("https://s.example/mcp", "https://s.example/sse"),
    )


def make_grant(clock: ManualClock, name: str = "g1") -> Grant:
    """A grant with every field set."""
    now = clock.time()
    return Grant(
        id=name,
        client_id="https://client.example/app.json",
        redirect_uri="http://localhost:1/callback",
        audience=("https://s.example/mcp",),
        scopes=frozenset({"a", "$b"}),
        created_at=now,
        last_used=now + 1,
        name="An $app",
        challenge="c" * 43,
        pending=True,
        refreshes=False,
        refresh_token=os.urandom(32),
        spent=(SpentRefreshToken(digest=os.urandom(32), successor=os.urandom(60), spent_at=now),),
        access_token=os.urandom(60),
        answered=False,
    )


def make_token_set(clock: ManualClock, name: str = "1") -> TokenSet:
    """A token set good for 60 s."""
    now = clock.time()
    return TokenSet(
        access_token=Secret(f"access-{name}"),
        refresh_token=Secret(f"refresh-{name}"),
        issued_at=now,
        expires_at=now + 60.0,
        scopes=frozenset({"openid", "a"}),
    )
