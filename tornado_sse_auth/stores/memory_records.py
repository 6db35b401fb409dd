"""Records in the memory of one process."""

from __future__ import annotations

import heapq
import json
from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from ..clock import Clock
from ..deadlines import Deadlines
from ..identity import Secret
from .base import KeptRecord, KeptRecords, SingleUseRecords, Trimmed

__all__ = ["MemoryKeptRecords", "MemorySingleUseRecords"]

MAX_RECORDS = 100_000


class _Kept(NamedTuple):
    text: Secret  # states and verifiers among it: a dump of the store's attributes must not show them
    version: int
    expires_at: float


class MemorySingleUseRecords(SingleUseRecords):
    """Records in a dict; beyond `MAX_RECORDS` the oldest is dropped."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._records: OrderedDict[tuple[str, bytes], tuple[Secret, float]] = OrderedDict()

    async def put(self, kind: str, digest: bytes, value: Mapping[str, Any], expires_at: float) -> None:
        self._records.pop((kind, digest), None)
        self._records[kind, digest] = (_text(value), expires_at)
        while len(self._records) > MAX_RECORDS:
            self._records.popitem(last=False)

    async def take(self, kind: str, digest: bytes) -> dict[str, Any] | None:
        text, expires_at = self._records.pop((kind, digest), (None, 0.0))
        if text is None or expires_at <= self._clock.time():
            return None
        value: dict[str, Any] = json.loads(text.reveal())
        return value


class MemoryKeptRecords(KeptRecords):
    """Records in dicts. What has expired goes with the next call; beyond `MAX_RECORDS` of a sort, which is a kind up to
    its first colon, what of that sort expires soonest: no sort pushes out another."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._kinds: dict[str, dict[str, _Kept]] = {}
        self._endings: defaultdict[str, Deadlines[tuple[str, str]]] = defaultdict(Deadlines)

    async def get(self, kind: str, key: str) -> KeptRecord | None:
        found = self._find(kind, key)
        if found is None:
            return None
        return KeptRecord(json.loads(found.text.reveal()), found.version, found.expires_at)

    async def put(self, kind: str, key: str, value: Mapping[str, Any], expires_at: float) -> None:
        self._write(kind, key, value, expires_at)

    async def replace(self, kind: str, key: str, value: Mapping[str, Any], expires_at: float, *, version: int) -> bool:
        found = self._find(kind, key)
        if version != (found.version if found is not None else 0):
            return False
        self._write(kind, key, value, expires_at)
        return True

    async def delete(self, kind: str, key: str) -> bool:
        found = self._find(kind, key)
        if found is not None:
            self._forget(kind, key)
        return found is not None

    async def trim(self, kind: str, *, keep: int, expiring_before: float) -> Trimmed:
        self._purge()
        of_kind = self._kinds.get(kind, {})
        soonest = heapq.nsmallest(len(of_kind) - keep, ((kept.expires_at, key) for key, kept in of_kind.items()))
        removed = tuple(key for ends, key in soonest if ends < expiring_before)
        for key in removed:
            self._forget(kind, key)
        return Trimmed(len(of_kind), removed)

    def _find(self, kind: str, key: str) -> _Kept | None:
        self._purge()
        return self._kinds.get(kind, {}).get(key)

    def _write(self, kind: str, key: str, value: Mapping[str, Any], expires_at: float) -> None:
        before = self._find(kind, key)
        version = before.version + 1 if before is not None else 1
        self._kinds.setdefault(kind, {})[key] = _Kept(_text(value), version, expires_at)
        endings = self._endings[_sort(kind)]
        endings.set((kind, key), expires_at)
        while len(endings) > MAX_RECORDS and (soonest := endings.earliest) is not None:
            self._remove(endings.due(soonest))

    def _forget(self, kind: str, key: str) -> None:
        self._endings[_sort(kind)].discard((kind, key))
        self._remove([(kind, key)])

    def _purge(self) -> None:
        now = self._clock.time()
        for endings in self._endings.values():
            self._remove(endings.due(now))

    def _remove(self, places: Iterable[tuple[str, str]]) -> None:
        for kind, key in places:
            of_kind = self._kinds[kind]
            del of_kind[key]
            if not of_kind:
                del self._kinds[kind]


def _text(value: Mapping[str, Any]) -> Secret:
    return Secret(json.dumps(dict(value)))


def _sort(kind: str) -> str:
    return kind.partition(":")[0]
