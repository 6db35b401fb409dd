"""Who may ask for grants: clients that the application names, that registered, or that publish a document."""

from __future__ import annotations

import base64
import hmac
import json
import os
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from ..clock import Clock
from ..errors import ConfigurationError, StoreUnavailableError
from ..identity import Secret
from ..stores.base import KeptRecords
from .client_metadata import ClientMetadata, read_client_metadata
from .errors import InvalidClientError, InvalidRedirectURIError
from .metadata_documents import MetadataDocuments, is_document_url
from .redirect_uris import check_redirect_uri

__all__ = ["Client", "ClientDirectory"]

KIND = "client"
KEY_KIND = "registration-key"
HOUR, DAY = 3600.0, 86_400.0
UNUSED = HOUR  # seconds after which a registration that nobody used goes
KEPT = 90 * DAY  # seconds that one stays after its last use
FOREVER = 10_000 * DAY
ATTEMPTS = 4
KEY_BYTES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """A piece of software that may ask users for grants.

    `redirect_uris` are exact; on loopback the port is free. `secret_digest` is the SHA-256 of its secret
    (`Secret(...).digest()`), None for a public client. `auth_methods` are the ways in which it may present it
    (RFC 6749, section 2.3.1); by default both. `uri` is its page, `refreshes` whether it gets refresh tokens.
    """

    id: str
    redirect_uris: tuple[str, ...]
    name: str = ""
    secret_digest: bytes | None = None
    auth_methods: tuple[str, ...] = ()
    uri: str | None = None
    refreshes: bool = True

    def __post_init__(self) -> None:
        if not self.auth_methods:
            public = self.secret_digest is None
            methods = ("none",) if public else ("client_secret_basic", "client_secret_post")
            object.__setattr__(self, "auth_methods", methods)

    @classmethod
    def described(cls, client_id: str, metadata: ClientMetadata, *, secret_digest: bytes | None = None) -> Client:
        """The client that `metadata` describes."""
        return cls(
            id=client_id,
            redirect_uris=metadata.redirect_uris,
            name=metadata.name,
            secret_digest=secret_digest,
            auth_methods=(metadata.auth_method,),
            uri=metadata.pages.get("client_uri"),
            refreshes="refresh_token" in metadata.grant_types,
        )


class ClientDirectory:
    """Finds clients by their id, registers new ones, and forgets those that nobody uses.

    Registered clients are in the store: every process knows what another has registered. `max_clients` of them are
    kept, and more where all are in use.
    """

    def __init__(
        self,
        kept: KeptRecords,
        clock: Clock,
        documents: MetadataDocuments,
        preregistered: Iterable[Client] = (),
        *,
        max_clients: int,
    ) -> None:
        self._kept = kept
        self._clock = clock
        self._documents = documents
        self._preregistered = {client.id: client for client in preregistered}
        self._max_clients = max_clients
        self._key: bytes | None = None
        for client in self._preregistered.values():
            for uri in client.redirect_uris:
                try:
                    check_redirect_uri(uri, public=client.secret_digest is None)
                except InvalidRedirectURIError as error:
                    raise ConfigurationError(f"client {client.id}: {uri!r}: {error.public_message}") from None

    def vouches_for(self, client_id: str) -> bool:
        """Whether the application itself has named the client: anybody may register, or publish a document."""
        return client_id in self._preregistered

    async def find(self, client_id: str) -> Client:
        """The client with this id. A metadata document is fetched, unless it is known. Raises `InvalidClientError`,
        `StoreUnavailableError`."""
        if is_document_url(client_id):
            return Client.described(client_id, await self._documents.fetch(client_id))
        return await self._known(client_id)

    async def find_at_token_endpoint(self, client_id: str) -> Client:
        """The same for a client that has been seen at the authorization endpoint: a metadata document is not fetched
        again, for all that counts there is that such a client is public."""
        if is_document_url(client_id):
            return Client(id=client_id, redirect_uris=())
        return await self._known(client_id)

    async def _known(self, client_id: str) -> Client:
        if (client := self._preregistered.get(client_id)) is not None:
            return client
        record = await self._kept.get(KIND, client_id) if 0 < len(client_id) <= 64 and client_id.isascii() else None
        if record is None:
            raise InvalidClientError(reason="no such client")
        return _registered(client_id, record.value)

    async def used(self, client: Client, *, granted: bool) -> None:
        """A registered client that is used stays; one whose user has begun to decide does for the time that takes."""
        record = await self._kept.get(KIND, client.id)
        if record is None:
            return
        now = self._clock.time()
        expires_at = now + (KEPT if granted else UNUSED)
        if record.expires_at < expires_at - (DAY if granted else UNUSED / 2):
            # On condition: whoever wrote meanwhile knows better, and the next use comes here again.
            await self._kept.replace(KIND, client.id, record.value, expires_at, version=record.version)

    async def register(self, metadata: ClientMetadata) -> tuple[str, Secret | None]:
        """A client id for this metadata, and a secret where the client has one. A public client that registers again
        is the one that it was: ids do not grow with starts of a program."""
        value: dict[str, Any] = {"metadata": metadata.document()}
        now = self._clock.time()
        if metadata.auth_method == "none":
            client_id, secret = await self._public_id(metadata), None
            record = await self._kept.get(KIND, client_id)
            if record is None:
                await self._kept.replace(KIND, client_id, value, now + UNUSED, version=0)
            else:
                await self.used(_registered(client_id, record.value), granted=False)
        else:
            client_id, secret = secrets.token_hex(16), Secret.random()
            value["secret"] = secret.digest().hex()
            await self._kept.put(KIND, client_id, value, now + UNUSED)
        # What was never used ends within the hour, whatever was used later than that: only the former makes room.
        await self._kept.trim(KIND, keep=self._max_clients, expiring_before=now + UNUSED + 1)
        return client_id, secret

    async def _public_id(self, metadata: ClientMetadata) -> str:
        canonical = json.dumps(metadata.document(), sort_keys=True).encode()
        return hmac.digest(await self._registration_key(), canonical, sha256).hex()[:32]

    async def _registration_key(self) -> bytes:
        """A key that all processes share and no client knows: ids cannot be guessed from what a program registers."""
        for _ in range(ATTEMPTS):
            if self._key is None and (record := await self._kept.get(KEY_KIND, "1")) is not None:
                self._key = base64.b64decode(record.value["key"])
            if self._key is not None:
                return self._key
            key = base64.b64encode(os.urandom(KEY_BYTES)).decode()
            await self._kept.replace(KEY_KIND, "1", {"key": key}, self._clock.time() + FOREVER, version=0)
        raise StoreUnavailableError(reason="the registration key can be neither read nor made")


def _registered(client_id: str, value: Mapping[str, Any]) -> Client:
    metadata = read_client_metadata(value["metadata"], default_auth_method="none")
    secret = value.get("secret")
    return Client.described(client_id, metadata, secret_digest=bytes.fromhex(secret) if secret else None)
