"""The lifespan of an `mcp` server object."""

from __future__ import annotations

import asyncio
import logging
from contextvars import Context
from typing import Any

from mcp.server.lowlevel.server import Server

__all__ = ["Lifespan"]

_log = logging.getLogger(__name__)


class Lifespan:
    """The server's lifespan, entered and left in one task of its own, as the SDK's users expect."""

    def __init__(self, server: Server[Any]) -> None:
        self._entered: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._leave = asyncio.Event()
        # In no request's context: what the lifespan starts would act for the first caller, and keep their request.
        self._task = asyncio.create_task(self._run(server), name="lifespan of the MCP server", context=Context())

    async def state(self) -> Any:
        """What it yielded. Raises what entering it raised."""
        return self._entered.result() if self._entered.done() else await asyncio.shield(self._entered)

    @property
    def yielded(self) -> Any:
        """The same, after `state`."""
        return self._entered.result()

    async def close(self) -> None:
        """Leave, within five seconds."""
        self._leave.set()
        _, late = await asyncio.wait([self._task], timeout=5.0)
        for task in late:
            task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self, server: Server[Any]) -> None:
        try:
            async with server.lifespan(server) as state:
                self._entered.set_result(state)
                await self._leave.wait()
        except Exception as error:
            if self._entered.done():
                _log.exception("the lifespan of the MCP server failed while it was left")
            else:
                self._entered.set_exception(error)
