"""Calls to MongoDB through Motor or PyMongo Async: bounded, and failing in one way."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, TypeAlias, TypeVar, cast

import pymongo
from bson.codec_options import CodecOptions
from pymongo import IndexModel
from pymongo.errors import AutoReconnect, BulkWriteError, DuplicateKeyError, OperationFailure, PyMongoError
from pymongo.read_preferences import ReadPreference
from pymongo.write_concern import WriteConcern

from ..errors import ConfigurationError, StoreUnavailableError

if TYPE_CHECKING:
    from motor.motor_asyncio import AsyncIOMotorDatabase
    from pymongo.asynchronous.database import AsyncDatabase

__all__ = [
    "Database",
    "Patience",
    "bounded",
    "collection",
    "find_one",
    "make_indexes",
    "require_replica_set",
    "settled",
    "starting",
    "unavailable",
    "undisturbed",
    "undisturbed_for",
]

Database: TypeAlias = "AsyncIOMotorDatabase[Any] | AsyncDatabase[Any]"
T = TypeVar("T")
P = ParamSpec("P")
Call: TypeAlias = Callable[P, Coroutine[Any, Any, T]]

CALL_TIMEOUT = 0.8
# While it looks for a primary the driver keeps a deadline only to half a second; whoever waits is told within one.
GIVEN_UP_AFTER = CALL_TIMEOUT + 0.05
# In which time is counted: while this process stood still, the answer may have come and only waits to be read.
LOOKS = 5
START_TIMEOUT = 5.0
# What no waiting mends: unauthorized, authentication failed, and an index that stands there with other options.
CONFIGURATION_CODES = frozenset({13, 18, 85, 86})
MONGODB_5_0 = 13  # its wire version


class bounded:  # noqa: N801 - reads as the keyword it stands beside: `with bounded():`
    """All driver calls inside take `timeout` seconds together; their errors become `StoreUnavailableError`.

    Duplicate keys (`DuplicateKeyError`, `BulkWriteError`) are let through: they are answers. Create no task inside: it
    would inherit the deadline; and watch nothing inside: a change stream would die of it.
    """

    __slots__ = ("_timeout",)

    def __init__(self, timeout: float = CALL_TIMEOUT) -> None:
        self._timeout = pymongo.timeout(timeout)

    def __enter__(self) -> None:
        self._timeout.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timeout.__exit__(kind, error, trace)
        if isinstance(error, PyMongoError) and not isinstance(error, DuplicateKeyError | BulkWriteError):
            raise unavailable(error) from error


class starting(bounded):  # noqa: N801
    """`bounded` for what is done once, at start: five seconds, and what only an operator can mend is a
    `ConfigurationError`."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(START_TIMEOUT)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            super().__exit__(kind, error, trace)
        except StoreUnavailableError:
            if isinstance(error, OperationFailure) and error.code in CONFIGURATION_CODES:
                raise ConfigurationError(f"MongoDB refuses: {error}") from error
            raise


_under_way: set[asyncio.Task[Any]] = set()  # each ends by its own deadline


class Patience:
    """Calls `tell` once after `seconds` in which the loop turned, unless it is cancelled: as `undisturbed_for` counts
    them."""

    def __init__(self, seconds: float, tell: Callable[[], None]) -> None:
        self._seconds = seconds / LOOKS
        self._looks = LOOKS
        self._tell = tell
        self._wait()

    def cancel(self) -> None:
        """It has come in time."""
        self._timer.cancel()

    def _wait(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._seconds, self._look)

    def _look(self) -> None:
        self._looks -= 1
        if self._looks:
            self._wait()
        else:
            self._tell()


def undisturbed_for(seconds: float) -> Callable[[Call[P, T]], Call[P, T]]:
    """Calls of the driver that go on when their caller is cancelled, and are given up after `seconds`.

    PyMongo's asyncio client waits for a connection by `asyncio.wait_for` over a condition. Cancelled there just when
    its own deadline has come, it gives a lock back that it does not hold, and the lock stays taken for ever: every
    later call of the process hangs (seen; Python 3.11). So no call that has a deadline is cancelled: it ends by that,
    and its caller goes on without it. Raises `StoreUnavailableError` where it does not end.
    """

    def decorate(call: Call[P, T]) -> Call[P, T]:
        @functools.wraps(call)
        async def calling(*args: P.args, **kwargs: P.kwargs) -> T:
            task = asyncio.create_task(call(*args, **kwargs), name=call.__qualname__)
            _under_way.add(task)
            task.add_done_callback(_ended)
            for _ in range(LOOKS):
                await asyncio.wait({task}, timeout=seconds / LOOKS)
                if task.done():
                    return task.result()
            raise StoreUnavailableError(reason="the driver did not keep its deadline")

        return calling

    return decorate


def undisturbed(call: Call[P, T]) -> Call[P, T]:
    """`undisturbed_for` what is asked for requests: all its calls together have little more than the time of one."""
    return undisturbed_for(GIVEN_UP_AFTER)(call)


def _ended(task: asyncio.Task[Any]) -> None:
    _under_way.discard(task)
    if not task.cancelled():
        task.exception()  # perhaps nobody waits for it any more


def unavailable(error: PyMongoError) -> StoreUnavailableError:
    """The driver's error as ours; its text, which may quote documents, stays with the cause."""
    code = getattr(error, "code", None)
    return StoreUnavailableError(reason=f"{type(error).__name__}{'' if code is None else f' {code}'}")


async def settled(value: T | Awaitable[T]) -> T:
    """What PyMongo gives from a coroutine and Motor at once: a change stream, the cursor of an aggregation."""
    return await value if inspect.isawaitable(value) else value


def collection(database: Database, name: str) -> Any:
    """A collection of either driver that reads from the primary, writes to a majority, and decodes to plain types,
    whatever the client was told."""
    return cast(Any, database).get_collection(
        name,
        codec_options=CodecOptions[dict[str, Any]](),
        read_preference=ReadPreference.PRIMARY,
        write_concern=WriteConcern("majority"),
    )


async def find_one(source: Any, query: dict[str, Any]) -> dict[str, Any] | None:
    """`source.find_one(query)` on the primary, for where it is asked on each request: without a cursor it costs a tenth
    less. The driver tries a command only once, so what a change of primary breaks goes the driver's usual way."""
    command = {"find": source.name, "filter": query, "limit": 1, "singleBatch": True}
    try:
        answer = await source.database.command(command, codec_options=source.codec_options)
    except AutoReconnect:
        return cast("dict[str, Any] | None", await source.find_one(query))
    found: list[dict[str, Any]] = answer["cursor"]["firstBatch"]
    return found[0] if found else None


@undisturbed_for(2 * START_TIMEOUT)
async def require_replica_set(database: Database) -> None:
    """Raises `ConfigurationError` where the server is too old or has no change streams, `StoreUnavailableError` where
    it is away."""
    with starting():
        hello = await cast(Any, database).command("hello")
    if hello.get("maxWireVersion", 0) < MONGODB_5_0:
        raise ConfigurationError("This MongoDB server is too old: 5.0 or later is needed.")
    if "setName" not in hello and hello.get("msg") != "isdbgrid":
        raise ConfigurationError(
            "This MongoDB server is not part of a replica set, and change streams need one. Start mongod with "
            "--replSet rs0 and make it a replica set of one node, once: mongosh --eval 'rs.initiate()'"
        )


@undisturbed_for(2 * START_TIMEOUT)
async def make_indexes(*wanted: tuple[Any, Sequence[IndexModel]]) -> None:
    """The indexes of these collections, where they are not there yet. Raises `ConfigurationError`,
    `StoreUnavailableError`."""
    with starting():
        for source, indexes in wanted:
            await source.create_indexes(list(indexes))
