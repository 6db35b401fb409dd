"""What may happen to the primary of a replica set of three."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress

from pymongo.errors import PyMongoError

from tests.parts.mongod import Mongod, ReplicaSet
from tests.parts.tcp_proxy import TCPProxy


class PrimaryFaults:
    """`async with faults.all["killed"]():` the body runs in the fault; after it every member is back."""

    def __init__(self, replicas: ReplicaSet, proxies: tuple[TCPProxy, ...] = (), *, frozen: float = 20.0) -> None:
        """`proxies` are the members' network, without which none is cut off. `frozen`: seconds that a frozen primary
        stays so, at least."""
        self._replicas = replicas
        self._proxies = proxies
        self._frozen = frozen
        self.all: dict[str, Callable[[], AbstractAsyncContextManager[None]]] = {
            "killed": self.killed,
            "stepped down": self.stepped_down,
            "frozen": self.frozen,
        }
        if proxies:
            self.all["cut off"] = self.cut_off

    @asynccontextmanager
    async def killed(self) -> AsyncIterator[None]:
        """SIGKILL; started again at the end."""
        member = await self._primary()
        await asyncio.to_thread(member.kill)
        try:
            yield
        finally:
            await asyncio.to_thread(member.start)
            await self._whole()

    @asynccontextmanager
    async def stepped_down(self) -> AsyncIterator[None]:
        """Told to be no primary any more, as before maintenance."""
        member = await self._primary()
        with suppress(PyMongoError):
            await asyncio.to_thread(member.run, "replSetStepDown", 10, force=True)
        yield

    @asynccontextmanager
    async def frozen(self) -> AsyncIterator[None]:
        """SIGSTOP: it holds every connection and answers none. Then it goes on, and believes to be primary still."""
        member = await self._primary()
        loop = asyncio.get_running_loop()
        with member.stopped():
            begun = loop.time()
            yield
            await asyncio.sleep(max(0.0, self._frozen - (loop.time() - begun)))
        await self._whole()

    @asynccontextmanager
    async def cut_off(self) -> AsyncIterator[None]:
        """The network to it swallows everything, without a reset."""
        member = await self._primary()
        with self._proxies[self._replicas.members.index(member)].blackhole():
            yield
        await self._whole()

    async def _primary(self) -> Mongod:
        return await asyncio.to_thread(self._replicas.primary)

    async def _whole(self) -> None:
        for member in self._replicas.members:
            await asyncio.to_thread(member.wait_until, member.is_member, "has not come back", 60)
