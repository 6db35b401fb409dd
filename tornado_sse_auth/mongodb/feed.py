"""One change stream that is kept open."""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import Any, TypeVar

from pymongo.errors import OperationFailure, PyMongoError

from ..clock import Clock
from ..errors import ConfigurationError, StoreUnavailableError
from .calls import CONFIGURATION_CODES, START_TIMEOUT, bounded, settled, unavailable, undisturbed

__all__ = ["ChangeFeed"]

logger = logging.getLogger(__name__)

RETRY_AFTER = (0.1, 0.3, 1.0, 2.0)  # seconds before an attempt to open again; the last one repeats
# The server answers an idle stream each second. One that is frozen, or behind a network that swallows everything, says
# nothing, and the driver would wait for half a minute.
SILENCE = 5.0
LOOK_EACH = 1.0
DELAY_KEPT = 60.0
CLOSE_TIMEOUT = 1.0
RESUMABLE = "ResumableChangeStreamError"

Change = Mapping[str, Any]
T = TypeVar("T")

# While there is no primary the driver looks for one each half second, under a lock. Cancelled in the wrong moment of
# that it keeps the lock (see `undisturbed`), so these are not: they end with the search, or with their client.
_left_alone: set[asyncio.Task[Any]] = set()


def _ended(task: asyncio.Task[Any]) -> None:
    _left_alone.discard(task)
    if not task.cancelled():
        task.exception()  # perhaps nobody waits for it any more


class ChangeFeed:
    """The changes of a collection that pass `pipeline`, each told to `on_change`, on the loop, in the server's order.

    A connection that is lost, or silent for five seconds, is resumed where it was. Where the server cannot resume (its
    history is shorter, the collection was dropped) the feed begins anew and then calls `on_loss`: whatever is read from
    then on is followed again. The pipeline keeps `_id` and lets the operation type `invalidate` pass.
    """

    def __init__(
        self,
        collection: Any,
        pipeline: Sequence[Mapping[str, Any]],
        *,
        on_change: Callable[[Change], None],
        on_loss: Callable[[], None],
        clock: Clock,
    ) -> None:
        self._collection = collection
        self._pipeline = list(pipeline)
        self._on_change = on_change
        self._on_loss = on_loss
        self._clock = clock
        self._token: Change | None = None
        self._heard: float | None = None
        self._delay = 0.0
        self._delay_seen = -math.inf
        self._failures = 0
        self._task: asyncio.Task[None] | None = None

    @property
    def alive(self) -> bool:
        """Whether the server has answered lately."""
        return self._heard is not None and self._clock.monotonic() - self._heard < SILENCE

    @property
    def delay(self) -> float | None:
        """Seconds from the server's write of the newest change to its arrival here, by the two machines' clocks; None
        where none came in the last minute."""
        return self._delay if self._clock.monotonic() - self._delay_seen < DELAY_KEPT else None

    async def start(self) -> None:
        """Return when every later change will be told. Raises `StoreUnavailableError`, `ConfigurationError`."""
        if self._task is not None:
            return
        try:
            async with self._reading(self._begin()) as beginning:
                await asyncio.wait({beginning}, timeout=START_TIMEOUT)
                if not beginning.done():
                    raise StoreUnavailableError(reason="no change stream was opened in time")
                self._token = beginning.result()
        except OperationFailure as error:
            if error.code in CONFIGURATION_CODES:
                raise ConfigurationError(f"MongoDB refuses a change stream: {error}") from error
            raise unavailable(error) from error
        except PyMongoError as error:
            raise unavailable(error) from error
        self._heard = self._clock.monotonic()
        self._task = asyncio.create_task(self._run(), name=f"change feed of {self._collection.name}")

    async def close(self) -> None:
        """Stop following. Twice is once."""
        task, self._task, self._heard = self._task, None, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task}, timeout=3 * CLOSE_TIMEOUT)

    async def _begin(self) -> Change:
        """A place in the server's history: now.

        Motor opens a stream only with the first read of it, and that waits for a change; this one waits 1 ms.
        """
        stream = await settled(self._collection.watch(self._pipeline, max_await_time_ms=1))
        async with stream:
            change = await self._next(stream)
            if change is not None:
                self._tell(change)
            token: Change = stream.resume_token
            return token

    async def _run(self) -> None:
        while True:
            try:
                await self._unless_silent(self._read())
            except TimeoutError:
                logger.warning("the change feed of %s is silent and is opened anew", self._collection.name)
            except StoreUnavailableError as error:
                logger.warning("the change feed of %s waits for the store: %s", self._collection.name, error)
            except PyMongoError as error:
                if isinstance(error, OperationFailure) and not error.has_error_label(RESUMABLE):
                    self._token = None
                logger.warning("the change feed of %s is interrupted: %s", self._collection.name, unavailable(error))
            except Exception:
                self._token = None
                logger.exception("the change feed of %s failed", self._collection.name)
            self._heard = None
            delay = RETRY_AFTER[min(self._failures, len(RETRY_AFTER) - 1)]
            self._failures += 1
            await asyncio.sleep(delay * random.uniform(0.5, 1.0))  # noqa: S311 - spreads processes, no secret

    async def _unless_silent(self, reading: Coroutine[Any, Any, None]) -> None:
        """Let it run to its end. Raises what it raises, and `TimeoutError` when the server falls silent."""
        silent = 0.0
        async with self._reading(reading) as task:
            while not task.done():
                heard = self._heard
                await asyncio.wait({task}, timeout=LOOK_EACH)
                # Counted in looks: while this process stood still, the server may have spoken.
                silent = silent + LOOK_EACH if self._heard == heard else 0.0
                if silent >= SILENCE and not task.done():
                    raise TimeoutError
            task.result()

    @asynccontextmanager
    async def _reading(self, reading: Coroutine[Any, Any, T]) -> AsyncIterator[asyncio.Task[T]]:
        """A task for it, which is given up where it has not ended at the end of the block."""
        task = asyncio.create_task(reading, name=f"change stream of {self._collection.name}")
        task.add_done_callback(_ended)
        try:
            yield task
        finally:
            if task.done():
                pass
            elif self._collection.database.client.topology_description.has_writable_server():
                # Ending a stream speaks to the server once more, which may be frozen: that is given up after a while.
                task.cancel()
                await asyncio.wait({task}, timeout=2 * CLOSE_TIMEOUT)
            else:
                _left_alone.add(task)

    async def _next(self, stream: Any) -> Change | None:
        """What the stream tells next. Ends the task where it was left alone in a search that has ended now."""
        change: Change | None = await stream.try_next()
        if asyncio.current_task() in _left_alone:
            raise asyncio.CancelledError
        return change

    async def _read(self) -> None:
        """Tell changes until the stream ends. Raises `PyMongoError`, `StoreUnavailableError`."""
        if self._failures:
            # Motor reads in threads that nobody can call back: each stream on a frozen server would cost one more.
            await self._ping()
        if self._token is None:
            self._token = await self._begin()
            self._on_loss()
        await self._follow(self._token)

    @undisturbed
    async def _ping(self) -> None:
        with bounded():
            await self._collection.database.command("ping")

    async def _follow(self, token: Change) -> None:
        """Tell changes until the collection is gone, which drops the token. Raises `PyMongoError`."""
        stream = await settled(self._collection.watch(self._pipeline, resume_after=token))
        try:
            while stream.alive:
                change = await self._next(stream)
                self._heard = self._clock.monotonic()
                self._failures = 0
                if change is not None and change["operationType"] != "invalidate":
                    self._tell(change)
                self._token = stream.resume_token
            self._token = None
        finally:
            with suppress(StoreUnavailableError):
                await _close(stream)

    def _tell(self, change: Change) -> None:
        written: datetime | None = change.get("wallTime")  # MongoDB 6.0 and later; in UTC, without saying so
        if written is not None:
            self._delay = max(0.0, self._clock.time() - written.replace(tzinfo=UTC).timestamp())
            self._delay_seen = self._clock.monotonic()
        self._on_change(change)


@undisturbed
async def _close(stream: Any) -> None:
    with bounded():
        await stream.close()
