"""What the tool works on: the database, the keys, and the provider where it is named."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from pymongo import AsyncMongoClient
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import ConfigurationError as UnusableURI
from pymongo.errors import InvalidURI

from ..audit import AuditLog
from ..clock import SystemClock
from ..errors import ConfigurationError
from ..metrics import NullMetrics
from ..mongodb import starting
from ..oauth import OAuthProvider
from ..options import Options
from ..sealing import Keyring
from ..sessions.manager import SessionManager
from ..stores import MongoSessionStore
from ..stores.mongo_inventory import MongoInventory
from .arguments import Arguments

__all__ = ["Deployment", "connected"]

SELECTION_TIMEOUT_MS = 5000


@dataclass(frozen=True, slots=True)
class Deployment:
    """`keyring` is None where no keys were given. Sessions are ended through `sessions`, as an application does it."""

    database: AsyncDatabase[dict[str, Any]]
    keyring: Keyring | None
    provider: OAuthProvider | None
    store: MongoSessionStore
    inventory: MongoInventory
    sessions: SessionManager
    audit: AuditLog

    def require_keyring(self) -> Keyring:
        """Raises `ConfigurationError` where no keys were given."""
        if self.keyring is None:
            raise ConfigurationError("give the encryption keys in SSE_AUTH_ENCRYPTION_KEYS or with --encryption-keys")
        return self.keyring


@asynccontextmanager
async def connected(given: Arguments) -> AsyncIterator[Deployment]:
    """Once the database answers. Raises `ConfigurationError`, `StoreUnavailableError`."""
    if not given.mongodb_uri:
        raise ConfigurationError("name the database in SSE_AUTH_MONGODB_URI or with --mongodb-uri")
    keyring = Keyring.from_base64(given.encryption_keys.reveal()) if given.encryption_keys else None
    provider = _provider(given, keyring)
    async with AsyncExitStack() as stack:
        try:
            client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(
                given.mongodb_uri.reveal(), serverSelectionTimeoutMS=SELECTION_TIMEOUT_MS
            )
        except (InvalidURI, UnusableURI, ValueError):
            # The cause may quote the URI, and with it a password.
            raise ConfigurationError("the MongoDB URI is not one that the driver understands") from None
        stack.push_async_callback(client.close)
        database = client[given.mongodb_database]
        with starting():
            await database.command("ping")
        clock = SystemClock()
        audit = AuditLog(clock)
        # Without keys nothing sealed is looked at; the store must have a ring all the same.
        store = MongoSessionStore(database, keyring or Keyring.generate())
        if provider is not None:
            await provider.start()
            stack.push_async_callback(provider.close)
        sessions = SessionManager(
            store,
            Options(public_url="http://localhost"),
            metrics=NullMetrics(),
            clock=clock,
            audit=audit,
            revoker=provider,
        )
        stack.push_async_callback(sessions.close, provider.timeout if provider is not None else 0.0)
        yield Deployment(database, keyring, provider, store, MongoInventory(database), sessions, audit)


def _provider(given: Arguments, keyring: Keyring | None) -> OAuthProvider | None:
    issuer = getattr(given, "issuer", None)
    if issuer is None:
        return None
    if not given.client_id or keyring is None:
        raise ConfigurationError("to revoke tokens at the provider its client id and the encryption keys are needed")
    return OAuthProvider(issuer=issuer, client_id=given.client_id, client_secret=given.client_secret)
