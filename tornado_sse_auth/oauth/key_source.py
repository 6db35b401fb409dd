"""The provider's signing keys as they change: kept, renewed, and asked for again when a token names an unknown one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from joserfc.jwk import Key
from joserfc.registry import Header

from ..clock import Clock
from ..errors import ProviderUnavailableError
from .id_token import read_key_set, verification_key
from .outcome import IdentityRejected
from .remote_document import RemoteDocument

__all__ = ["KeySource"]

KEYS_AGE = 3600.0
# Tokens with invented key ids must not become requests to the provider (SEC-27).
REFETCH_INTERVAL = 60.0


class KeySource:
    """Keys by the header of a token. `load` fetches the JWK set and bounds itself; `close()` cancels it."""

    def __init__(self, load: Callable[[], Awaitable[Mapping[str, Any]]], *, clock: Clock) -> None:
        self._load = load
        self._clock = clock
        self._keys: RemoteDocument[tuple[Key, ...]] = RemoteDocument(
            "key set", self._load_keys, clock=clock, max_age=KEYS_AGE
        )
        self._refetched: float | None = None

    async def find(self, header: Header) -> Key:
        """The key for a token with `header`. Raises `IdentityRejected`, `ProviderUnavailableError`."""
        key = verification_key(await self._keys.get(), header)
        if key is None and self._may_refetch():
            key = verification_key(await self._keys.reload(), header)
        if key is None:
            raise IdentityRejected(reason="the token is signed with a key that the provider does not publish")
        return key

    async def reload(self) -> None:
        """Fetch the key set now. Raises `ProviderUnavailableError`."""
        await self._keys.reload()

    async def close(self) -> None:
        """Cancels a fetch that is under way."""
        await self._keys.close()

    def _may_refetch(self) -> bool:
        now = self._clock.monotonic()
        if self._refetched is not None and now - self._refetched < REFETCH_INTERVAL:
            return False
        self._refetched = now
        return True

    async def _load_keys(self) -> tuple[Key, ...]:
        try:
            return read_key_set(await self._load())
        except ValueError as error:
            raise ProviderUnavailableError(reason=str(error)) from error
