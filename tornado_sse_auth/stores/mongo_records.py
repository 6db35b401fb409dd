"""Records in MongoDB: single-use ones, and kept ones."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

from pymongo.errors import DuplicateKeyError

from ..clock import Clock
from ..mongodb import bounded, find_one, undisturbed
from ..sealing import Keyring, UnsealError, context
from .base import KeptRecord, KeptRecords, SingleUseRecords, Trimmed
from .documents import SCHEMA, date, key_name

__all__ = ["MongoKeptRecords", "MongoSingleUseRecords", "kept_place", "record_place"]

logger = logging.getLogger(__name__)


class MongoSingleUseRecords(SingleUseRecords):
    """Records as documents named by kind and digest; the value is sealed for that place."""

    def __init__(self, records: Any, keyring: Keyring, clock: Clock) -> None:
        self._records = records
        self._keyring = keyring
        self._clock = clock

    @undisturbed
    async def put(self, kind: str, digest: bytes, value: Mapping[str, Any], expires_at: float) -> None:
        name = _record_id(kind, digest)
        sealed = self._keyring.seal(json.dumps(dict(value)).encode(), context("record", kind, digest))
        document = {
            "_id": name,
            "schema": SCHEMA,
            "value": sealed,
            "value_key": key_name(sealed),
            "expires_at": expires_at,
            "ends_at": date(expires_at),
        }
        with bounded():
            await self._records.replace_one({"_id": name}, document, upsert=True)

    @undisturbed
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


def record_place(document: Mapping[str, Any]) -> bytes:
    """What the value of a stored single-use record is sealed for."""
    kind, _, digest = document["_id"].rpartition(":")
    return context("record", kind, bytes.fromhex(digest))


def kept_place(document: Mapping[str, Any]) -> bytes:
    """What the value of a stored kept record is sealed for."""
    kind: str = document["kind"]
    return context("kept", kind, document["_id"].removeprefix(f"{kind}:"))


class MongoKeptRecords(KeptRecords):
    """The same, with a version that each write raises."""

    def __init__(self, records: Any, keyring: Keyring, clock: Clock) -> None:
        self._records = records
        self._keyring = keyring
        self._clock = clock

    @undisturbed
    async def get(self, kind: str, key: str) -> KeptRecord | None:
        with bounded():
            document = await find_one(self._records, {"_id": _kept_id(kind, key)})
        if document is None or document.get("schema") != SCHEMA or document["expires_at"] <= self._clock.time():
            return None
        value = self._open(document, kind, key)
        return None if value is None else KeptRecord(value, document["version"], document["expires_at"])

    @undisturbed
    async def put(self, kind: str, key: str, value: Mapping[str, Any], expires_at: float) -> None:
        with bounded():
            await self._records.update_one(
                {"_id": _kept_id(kind, key)}, self._written(kind, key, value, expires_at), upsert=True
            )

    @undisturbed
    async def replace(self, kind: str, key: str, value: Mapping[str, Any], expires_at: float, *, version: int) -> bool:
        name, now = _kept_id(kind, key), self._clock.time()
        query = {"expires_at": {"$gt": now}, "version": version} if version else {"expires_at": {"$lte": now}}
        written = self._written(kind, key, value, expires_at)
        try:
            with bounded():
                result = await self._records.update_one({"_id": name, **query}, written, upsert=not version)
        except DuplicateKeyError:  # to be made, and there already
            with bounded():
                found = await find_one(self._records, {"_id": name})
            if found is None or found.get("schema") != SCHEMA or self._open(found, kind, key) is not None:
                return False
            # Whoever reads it finds nothing, so it must not be in the way for ever (SEC-59).
            with bounded():
                result = await self._records.update_one({"_id": name, "value": found["value"]}, written)
        return bool(result.matched_count or result.upserted_id is not None)

    @undisturbed
    async def delete(self, kind: str, key: str) -> bool:
        with bounded():
            document = await self._records.find_one_and_delete(
                {"_id": _kept_id(kind, key)}, projection={"expires_at": True}
            )
        return document is not None and document["expires_at"] > self._clock.time()

    @undisturbed
    async def trim(self, kind: str, *, keep: int, expiring_before: float) -> Trimmed:
        live = {"kind": kind, "expires_at": {"$gt": self._clock.time()}}
        with bounded():
            count: int = await self._records.count_documents(live)
            if count <= keep:
                return Trimmed(count)
            expendable = {"kind": kind, "expires_at": {"$gt": self._clock.time(), "$lt": expiring_before}}
            soonest = self._records.find(expendable, ["_id"]).sort("expires_at", 1).limit(count - keep)
            found = {"_id": {"$in": [document["_id"] for document in await soonest.to_list(None)]}}
            # Once more on condition: one that has been used meanwhile stays.
            await self._records.delete_many({**found, "expires_at": {"$lt": expiring_before}})
            stayed = {document["_id"] for document in await self._records.find(found, ["_id"]).to_list(None)}
        removed = tuple(name.removeprefix(f"{kind}:") for name in found["_id"]["$in"] if name not in stayed)
        return Trimmed(count - len(removed), removed)

    def _open(self, document: Mapping[str, Any], kind: str, key: str) -> dict[str, Any] | None:
        try:
            value: dict[str, Any] = json.loads(self._keyring.open(document["value"], context("kept", kind, key)))
        except UnsealError as error:
            logger.warning("a kept record of kind %s is unreadable: %s", kind, error)
            return None
        return value

    def _written(self, kind: str, key: str, value: Mapping[str, Any], expires_at: float) -> Any:
        sealed = self._keyring.seal(json.dumps(dict(value)).encode(), context("kept", kind, key))
        return {
            "$set": {
                "schema": SCHEMA,
                "kind": kind,
                "value": sealed,
                "value_key": key_name(sealed),
                "expires_at": expires_at,
                "ends_at": date(expires_at),
            },
            "$inc": {"version": 1},
        }


def _kept_id(kind: str, key: str) -> str:
    return f"{kind}:{key}"
