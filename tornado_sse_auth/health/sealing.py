"""A check of the keys that sealed values need."""

from __future__ import annotations

import asyncio

from ..clock import Clock
from ..errors import StoreUnavailableError
from ..stores import SealingKeys, SessionStore
from .check import Check
from .report import Answer, Measurement, Status, Trouble

__all__ = ["SealingCheck"]

COUNT_EACH = 300.0  # counting reads an index of every sealed value
COUNT_EACH_LOST = 10.0
WAIT = 1.0


class SealingCheck(Check):
    """Whether every sealed value has its key. The count runs beside the check, which says what was counted last."""

    name = "sealing"
    component = "datastore"

    def __init__(self, store: SessionStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._keys: SealingKeys | None = None
        self._counted_at = float("-inf")
        self._count: asyncio.Task[SealingKeys] | None = None

    async def ask(self) -> Answer:
        """Raises `StoreUnavailableError` where counting did."""
        each = COUNT_EACH_LOST if self._keys is not None and self._keys.lost else COUNT_EACH
        if self._count is None and self._clock.monotonic() - self._counted_at >= each:
            self._count = asyncio.create_task(self._store.sealing_keys(), name="count sealing keys")
        if self._count is not None:
            await asyncio.wait({self._count}, timeout=WAIT)
            if self._count.done():
                count, self._count = self._count, None
                self._note(count)
        return Answer() if self._keys is None else _answer(self._keys)

    def _note(self, count: asyncio.Task[SealingKeys]) -> None:
        try:
            self._keys = count.result()
            self._counted_at = self._clock.monotonic()
        except StoreUnavailableError:  # which the checks of the store say; what was counted is not wrong for that
            if self._keys is None:
                raise

    async def close(self) -> None:
        if self._count is not None:
            self._count.cancel()
            await asyncio.wait({self._count}, timeout=WAIT)


def _answer(keys: SealingKeys) -> Answer:
    measurements = (
        Measurement("keys", len(keys.ring)),
        Measurement("values", sum(keys.values.values())),
        Measurement("outdated", keys.outdated),
        Measurement("lost", keys.lost),
    )
    if not keys.lost:
        return Answer(measurements=measurements)
    missing = sorted(set(keys.values) - set(keys.ring))
    trouble = Trouble(
        what="sealed values have been without their key",
        detail=f"{keys.lost} of {sum(keys.values.values())}, key id {', '.join(missing)}",
        hurts="the users of these sessions must sign in again",
        remedy="give the missing key to --encryption-keys too, after the first one",
    )
    return Answer(status=Status.WARN, trouble=trouble, measurements=measurements)
