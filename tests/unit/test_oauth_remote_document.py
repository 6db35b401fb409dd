"""A document of the provider: loaded once for all, renewed behind their backs."""

from __future__ import annotations

import asyncio

import pytest

from tornado_sse_auth.errors import ProviderUnavailableError
from tornado_sse_auth.oauth.remote_document import RemoteDocument


class Source:
    """Loads count upwards; each waits for the gate."""

    def __init__(self) -> None:
        self.now = 0.0
        self.loads = 0
        self.fails = False
        self.retry_after = 2.0
        self.gate = asyncio.Event()
        self.gate.set()
        self.document = RemoteDocument("test", self.load, clock=self, max_age=100.0, retry_age=10.0)

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now

    async def load(self) -> int:
        self.loads += 1
        await self.gate.wait()
        if self.fails:
            raise ProviderUnavailableError(reason="down", retry_after=self.retry_after)
        return self.loads

    async def settle(self) -> None:
        """Lets what has been started in the background end; nothing here waits for anything else."""
        for _ in range(5):
            await asyncio.sleep(0)


async def test_renewal_in_the_background(caplog: pytest.LogCaptureFixture) -> None:
    source = Source()
    assert [await source.document.get() for _ in range(3)] == [1, 1, 1]
    source.now, source.fails = 101.0, True
    for _ in range(3):
        assert await source.document.get() == 1
        await source.settle()
    assert source.loads == 2
    assert "could not be renewed" in caplog.text
    source.now, source.fails = 112.0, False
    assert await source.document.get() == 1
    await source.settle()
    assert await source.document.get() == 3
    assert source.loads == 3


async def test_one_flight_outlives_those_who_leave() -> None:
    """REL-26: who gives up takes nothing from the others; an error that nobody waits for stays off the loop."""
    source = Source()
    source.gate.clear()
    impatient, patient = (asyncio.create_task(source.document.get()) for _ in range(2))
    await source.settle()
    impatient.cancel()
    await source.settle()
    source.gate.set()
    assert await patient == 1
    assert impatient.cancelled()
    assert source.loads == 1

    source.gate.clear()
    source.fails = True
    alone = asyncio.create_task(source.document.reload())
    await source.settle()
    alone.cancel()
    source.gate.set()
    await source.settle()
    assert source.loads == 2


async def test_failing_at_first_and_then_not() -> None:
    """SEC-27: a failed first load is not tried again before the pause that it asked for is over, whoever asks how
    often; nobody asks for longer than the document is worth. Who is told to load now does."""
    source = Source()
    source.fails = True
    for asked, paused in ((2.0, 2.0), (5.0, 5.0), (3600.0, 10.0)):
        source.retry_after = asked
        source.loads = 0
        for passed in (0.0, paused / 2, paused / 2 - 0.1):
            source.now += passed
            for _ in range(1000):
                with pytest.raises(ProviderUnavailableError) as away:
                    await source.document.get()
        assert source.loads == 1
        assert away.value.retry_after == pytest.approx(0.1)
        source.now += 0.2
    with pytest.raises(ProviderUnavailableError):
        await source.document.get()
    source.fails, source.loads = False, 0
    assert await source.document.reload() == 1
    assert await source.document.get() == 1


async def test_closing_frees_those_who_wait() -> None:
    source = Source()
    source.gate.clear()
    waiting = asyncio.create_task(source.document.get())
    await source.settle()
    await source.document.close()
    with pytest.raises(ProviderUnavailableError):
        await waiting
