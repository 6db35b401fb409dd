"""Authorization requests whose users are on their way: to the provider and back, or about to decide."""

from __future__ import annotations

from ..clock import Clock
from ..errors import InvalidRequestError
from ..identity import Secret
from ..stores.base import KeptRecords
from .authorization_request import AuthorizationRequest

__all__ = ["PendingRequests"]

KIND = "authorization-request"
TTL = 600.0
MAX_ID = 64


class PendingRequests:
    """In the store, for any process to go on with. The id that a browser carries is there as its SHA-256: a copy of the
    database names no request that waits."""

    def __init__(self, kept: KeptRecords, clock: Clock) -> None:
        self._kept = kept
        self._clock = clock

    async def put(self, request_id: str, request: AuthorizationRequest) -> None:
        """Keep it for ten minutes from now."""
        await self._kept.put(KIND, _key(request_id), request.to_record(), self._clock.time() + TTL)

    async def find(self, request_id: str) -> AuthorizationRequest:
        """The request. Raises `InvalidRequestError`."""
        record = await self._kept.get(KIND, _key(request_id)) if 0 < len(request_id) <= MAX_ID else None
        if record is None:
            raise InvalidRequestError("This request is unknown, decided or too old.")
        return AuthorizationRequest.from_record(record.value)

    async def remove(self, request_id: str) -> bool:
        """False where it was removed already: of several who decide at once, one does."""
        return await self._kept.delete(KIND, _key(request_id))


def _key(request_id: str) -> str:
    return Secret(request_id).digest().hex()
