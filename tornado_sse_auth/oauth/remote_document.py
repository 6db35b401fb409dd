"""A document of the provider (metadata, keys): loaded once for all who ask, kept, renewed in the background."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from ..clock import Clock
from ..errors import PAUSES, ProviderUnavailableError

__all__ = ["RemoteDocument"]

logger = logging.getLogger(__name__)
T = TypeVar("T")


class RemoteDocument(Generic[T]):
    """Single flight around `load`, which bounds itself. Older than `max_age` seconds it is renewed on use.

    Who asks meanwhile gets the old value, and keeps it while renewing fails; that is tried at most each `retry_age`
    seconds. Where there is no old value, a load that failed is followed by a pause: as long as the provider asked for,
    at most `retry_age`. Forged tokens must not become a request each while the keys are away (SEC-27).
    """

    def __init__(
        self, name: str, load: Callable[[], Awaitable[T]], *, clock: Clock, max_age: float, retry_age: float = 60.0
    ) -> None:
        self._name = name
        self._load = load
        self._clock = clock
        self._max_age = max_age
        self._retry_age = retry_age
        self._value: T | None = None
        self._due = 0.0
        self._task: asyncio.Task[T] | None = None

    async def get(self) -> T:
        """The document; waits only for the very first one. Raises what `load` raises, and `ProviderUnavailableError`
        in the pause after that."""
        now = self._clock.monotonic()
        if self._value is None:
            if now < self._due:
                raise ProviderUnavailableError(
                    reason=f"{self._name}: could not be loaded a moment ago", retry_after=self._due - now
                )
            return await self.reload()
        if now >= self._due:
            self._due = now + self._retry_age
            self._flight().add_done_callback(self._report)
        return self._value

    async def reload(self) -> T:
        """A document loaded now, or by the flight that is under way. Raises what `load` raises."""
        flight = self._flight()
        await asyncio.wait([flight])
        if flight.cancelled():
            raise ProviderUnavailableError(reason=f"{self._name}: the provider is being closed")
        return flight.result()

    async def close(self) -> None:
        """Cancels the load that is under way."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def _flight(self) -> asyncio.Task[T]:
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._loaded(), name=f"load {self._name}")
            self._task.add_done_callback(_retrieve)
        return self._task

    async def _loaded(self) -> T:
        try:
            value = await self._load()
        except Exception as error:
            if self._value is None:
                pause = error.retry_after if isinstance(error, ProviderUnavailableError) else PAUSES[503]
                self._due = self._clock.monotonic() + min(pause, self._retry_age)
            raise
        self._value = value
        self._due = self._clock.monotonic() + self._max_age
        return value

    def _report(self, task: asyncio.Task[T]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.warning("the provider's %s could not be renewed, the old one stays: %s", self._name, error)


def _retrieve(task: asyncio.Task[T]) -> None:
    # All who waited may have gone; the error is theirs and not the loop's.
    with contextlib.suppress(asyncio.CancelledError):
        task.exception()
