"""Whether the primary is known to have all that a majority has."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, cast

from pymongo.server_type import SERVER_TYPE

from ..clock import Clock
from .calls import Database

__all__ = ["Primary"]

T = TypeVar("T")

# Seconds. Far below the time after which a majority that does not see its primary elects another one (10 s).
KNOWN_FOR = 1.0


class Primary:
    """A primary that was elected a moment ago may not know yet what a majority has, and one that is cut off what it has
    written since. A linearizable read waits until it is known, for 0.1 s and with a write to the log of the replica
    set: dear, where a crowd does it. What one of them has shown is good for a second, as long as nobody else is
    elected."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._client = cast(Any, database).client
        self._clock = clock
        self._shown: tuple[Any, float] = (None, 0.0)

    @property
    def knows_all(self) -> bool:
        """Whether a read of what a majority has, begun now, finds everything that was written to a majority."""
        election, until = self._shown
        return election is not None and election == self._election() and self._clock.monotonic() < until

    async def shown_by(self, linearizable: Callable[[], Awaitable[T]]) -> T:
        """The result of a linearizable read."""
        election, until = self._election(), self._clock.monotonic() + KNOWN_FOR
        result = await linearizable()
        self._shown = (election, until)
        return result

    def _election(self) -> tuple[Any, Any] | None:
        for server in self._client.topology_description.server_descriptions().values():
            if server.server_type == SERVER_TYPE.RSPrimary:
                return server.address, server.election_id
        return None
