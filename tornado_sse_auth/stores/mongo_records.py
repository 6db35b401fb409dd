"""Single-use records in MongoDB."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

from ..clock import Clock
from ..mongodb import bounded
from ..sealing import Keyring, UnsealError, context
from .base import SingleUseRecords
from .documents import SCHEMA, date

__all__ = ["MongoSingleUseRecords"]

logger = logging.getLogger(__name__)


class MongoSingleUseRecords(SingleUseRecords):
    """Records as documents named by kind and digest; the value is sealed for that place."""

    def __init__(self, records: Any, keyring: Keyring, clock: Clock) -> None:
        self._records = records
        self._keyring = keyring
        self._clock = clock

    async def put(self, kind: str, digest: bytes, value: Mapping[str, Any], expires_at: float) -> None:
        name = _record_id(kind, digest)
        sealed = self._keyring.seal(json.dumps(dict(value)).encode(), context("record", kind, digest))
        document = {
            "_id": name,
            "schema": SCHEMA,
            "value": sealed,
            "expires_at": expires_at,
            "ends_at": date(expires_at),
        }
        with bounded():
            await self._records.replace_one({"_id": name}, document, upsert=True)

    async def take(self, kind: str, digest: bytes) -> dict[str, Any] | None:
        name = _record_id(kind, digest)
        with bounded():
            document = await self._records.find_one_and_delete({"_id": name})
        if document is None or document.get("schema") != SCHEMA or document["expires_at"] <= self._clock.time():
            return None
        try:
            value: dict[str, Any] = json.loads(self._keyring.open(document["value"], context("record", kind, digest)))
        except UnsealError as error:
            logger.warning("a single-use record of kind %s is unreadable: %s", kind, error)
            return None
        return value


def _record_id(kind: str, digest: bytes) -> str:
    return f"{kind}:{digest.hex()}"
