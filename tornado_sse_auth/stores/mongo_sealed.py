"""The sealed values of all collections: which keys they need, and sealing them again with the first one."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pymongo import UpdateOne

from ..mongodb import bounded, undisturbed_for
from ..sealing import Keyring, UnsealError, context
from .base import SealingKeys
from .documents import SEALED, key_name
from .mongo_records import kept_place, record_place

__all__ = ["MongoSealedValues", "Resealed"]

LONG_CALL = 10.0
BATCH = 200


@dataclass(frozen=True, slots=True)
class Resealed:
    """How far it is: values sealed again, and values that were altered or belong elsewhere and stay as they are."""

    done: int = 0
    failed: int = 0


@dataclass(frozen=True, slots=True)
class _Field:
    """A field with sealed values; the id of the key of each stands beside it, in `key`."""

    collection: Any
    name: str
    place: Callable[[Mapping[str, Any]], bytes]

    @property
    def key(self) -> str:
        return f"{self.name}_key"


class MongoSealedValues:
    """Looks at sealed values without minding whose they are. Raises `StoreUnavailableError`; calls take up to 10 s."""

    def __init__(self, sessions: Any, records: Any, kept: Any, keyring: Keyring) -> None:
        self._keyring = keyring
        self._fields = [
            *(_Field(sessions, name, _session_place(name)) for name in SEALED),
            _Field(records, "value", record_place),
            _Field(kept, "value", kept_place),
        ]

    async def keys(self) -> SealingKeys:
        """Which keys are needed, and by how many values."""
        values: Counter[str] = Counter()
        for field in self._fields:
            values.update(await self._count(field))
        return SealingKeys(ring=tuple(key.hex() for key in self._keyring.key_ids), values=dict(values))

    @undisturbed_for(2 * LONG_CALL)
    async def _count(self, field: _Field) -> Counter[str]:
        values: Counter[str] = Counter()
        with bounded(LONG_CALL):
            # With a bound that every key meets the server jumps through the sparse index; else it reads all.
            for key in await field.collection.distinct(field.key, {field.key: {"$gt": ""}}):
                values[key] += await field.collection.count_documents({field.key: key})
        return values

    async def reseal(self) -> AsyncIterator[Resealed]:
        """Seal again, with the first key, what another key of the ring has sealed; tells how far it is after each few
        hundred. Nobody is signed out, no version changes, no listener hears of it; what is written meanwhile counts.
        """
        so_far = Resealed()
        for field in self._fields:
            for key in self._keyring.key_ids[1:]:
                skipped: list[Any] = []
                while (documents := await self._under(field, key, skipped)) and (
                    step := await self._seal_again(field, documents, skipped)
                ) != Resealed():
                    so_far = Resealed(so_far.done + step.done, so_far.failed + step.failed)
                    yield so_far

    @undisturbed_for(2 * LONG_CALL)
    async def _under(self, field: _Field, key: bytes, skipped: list[Any]) -> list[dict[str, Any]]:
        query = {field.key: key.hex(), "_id": {"$nin": skipped}}
        wanted = [field.name, "kind", "user_id"]
        with bounded(LONG_CALL):
            found: list[dict[str, Any]] = await field.collection.find(query, wanted).limit(BATCH).to_list(None)
        return found

    @undisturbed_for(2 * LONG_CALL)
    async def _seal_again(self, field: _Field, documents: list[dict[str, Any]], skipped: list[Any]) -> Resealed:
        updates, failed = [], 0
        for document in documents:
            old, place = document[field.name], field.place(document)
            try:
                new = self._keyring.seal(self._keyring.open(old, place), place)
            except UnsealError:
                skipped.append(document["_id"])
                failed += 1
                continue
            # On condition: a refresh may have written another value meanwhile.
            updates.append(
                UpdateOne(
                    {"_id": document["_id"], field.name: old}, {"$set": {field.name: new, field.key: key_name(new)}}
                )
            )
        if not updates:
            return Resealed(0, failed)
        with bounded(LONG_CALL):
            result = await field.collection.bulk_write(updates, ordered=False)
        return Resealed(result.modified_count, failed)


def _session_place(field: str) -> Callable[[Mapping[str, Any]], bytes]:
    return lambda document: context(field, document["_id"], document["user_id"])
