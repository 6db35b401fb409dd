"""When checks are asked, what is kept of their answers, and what is said of a trouble."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest

from tornado_sse_auth.errors import ConfigurationError, ProviderUnavailableError, StoreUnavailableError
from tornado_sse_auth.health import Answer, Check, Health, Measurement, Status, Trouble
from tornado_sse_auth.health.check import reason_of
from tornado_sse_auth.mongodb.replica_set import read_view
from tornado_sse_auth.testing import ManualClock, RecordingMetrics
from tornado_sse_auth.web.health import _document

TROUBLE = Trouble(what="it has not answered", hurts="nobody can do it", remedy="look at it")


class Scripted(Check):
    """Answers what it is told to."""

    name = "store"
    component = "datastore"

    def __init__(self) -> None:
        self.asked = 0
        self.answer: Answer | Exception = Answer()
        self.gate: asyncio.Event | None = None

    async def ask(self) -> Answer:
        self.asked += 1
        if self.gate is not None:
            await self.gate.wait()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def unanswered(self, reason: str) -> Answer:
        return Answer(
            status=Status.FAIL, trouble=Trouble(what="it has not answered", detail=reason, hurts="h", remedy="r")
        )


@asynccontextmanager
async def started(check: Scripted, clock: ManualClock, metrics: RecordingMetrics) -> AsyncIterator[Health]:
    health = Health([check], metrics=metrics, clock=clock)
    await health.start()
    health._periodic.stop()  # its ticks are the test's
    try:
        yield health
    finally:
        await health.close()


async def ticked(health: Health) -> None:
    health._tick()
    for probe in health._probes:
        if probe.flight is not None:
            await probe.flight


async def test_each_ten_seconds_each_second_while_failing_and_on_demand() -> None:
    check, clock, metrics = Scripted(), ManualClock(), RecordingMetrics()
    async with started(check, clock, metrics) as health:
        assert check.asked == 1
        for _ in range(9):
            clock.advance(1.0)
            await ticked(health)
        assert check.asked == 1, "it passes, and nobody asks"
        clock.advance(1.0)
        await ticked(health)
        assert check.asked == 2
        for _ in range(1000):
            assert (await health.report()).ready
        assert check.asked == 2, "not older than a second"
        clock.advance(1.0)
        reports = await asyncio.gather(*(health.report() for _ in range(1000)))
        assert check.asked == 3, "a thousand probes are one question"
        assert len({id(report) for report in reports}) == 1
        check.answer = StoreUnavailableError(reason="AutoReconnect")
        clock.advance(1.0)
        assert not (await health.report()).ready
        for _ in range(2):
            clock.advance(1.0)
            await ticked(health)
        assert check.asked == 6
        assert metrics.gauges["check.store"] == 2
        assert not health.latest.ready
        check.answer = Answer(rest=30.0)
        clock.advance(1.0)
        assert not (await health.report()).ready, "nobody waits for what does not pass"
        await ticked(health)
        assert (await health.report()).ready
        clock.advance(29.0)
        await ticked(health)
        await health.report()
        assert check.asked == 7, "it may not be asked again yet"
    assert metrics.gauges["check.store"] == 0


async def test_what_hangs_is_answered_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A check that does not end has its own bound; one that does not even end when cancelled has the report's."""
    monkeypatch.setattr("tornado_sse_auth.health.health.CHECK_TIMEOUT", 0.05)
    monkeypatch.setattr("tornado_sse_auth.health.health.ANSWER_TIMEOUT", 0.2)
    check, clock = Scripted(), ManualClock()
    async with started(check, clock, RecordingMetrics()) as health:
        check.gate = asyncio.Event()
        clock.advance(2.0)
        finding = (await health.report()).findings[0]
        assert finding.output is not None
        assert "(no answer in time)" in finding.output

        class Stubborn(asyncio.Event):
            async def wait(self) -> bool:
                while not self.is_set():
                    try:
                        await super().wait()
                    except asyncio.CancelledError:
                        continue
                return True

        gate = check.gate = Stubborn()
        clock.advance(2.0)
        health._probes[0].finding = None  # as before the first answer: it is waited for
        assert (await health.report()).status is Status.FAIL
        asked = check.asked
        clock.advance(2.0)
        await health.report()
        assert check.asked == asked, "single flight: nobody asks beside one that hangs"
        gate.set()


async def test_since_when_and_told_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="tornado_sse_auth.health")
    check, clock = Scripted(), ManualClock()
    async with started(check, clock, RecordingMetrics()) as health:
        began = clock.time() + 2
        for detail in ("AutoReconnect", "ServerSelectionTimeoutError"):
            check.answer = StoreUnavailableError(reason=detail)
            clock.advance(2.0)
            await health.report()
            await ticked(health)
        finding = health.latest.findings[0]
        assert (finding.since, finding.passed_at) == (began, began - 2)
        assert (
            finding.output == "Since 2023-11-14 22:13:22 UTC it has not answered (ServerSelectionTimeoutError): h; r."
        )
        assert health.latest.output == finding.output
        check.answer = Answer(status=Status.WARN, trouble=TROUBLE, measurements=(Measurement("left", 3, "d"),))
        clock.advance(2.0)
        await ticked(health)
        warned = health.latest.findings[0]
        assert warned.since == began + 4
        document = json.loads(_document(health.latest))
        assert document["status"] == "warn"
        assert document["output"] == warned.output
        assert document["checks"]["store:left"][0]["observedValue"] == 3
        assert document["checks"]["store:responseTime"][0]["status"] == "warn"
        check.answer = Answer()
        clock.advance(2.0)
        await ticked(health)
        assert health.latest.output is None
        health.drain()
        drained = await health.report()
        assert (drained.status, drained.ready) == (Status.FAIL, False)
        assert "shutting down" in str(drained.output)
    told = [record.getMessage() for record in caplog.records]
    assert [re.sub(r"^check store: ", "", line)[:20] for line in told] == [
        "fail. Since 2023-11-",
        "warn. Since 2023-11-",
        "passes again, after ",
    ]


def test_a_reason_has_neither_address_nor_secret() -> None:
    wrong = ProviderUnavailableError(reason="https://provider.example names another issuer")
    wrong.__cause__ = ConfigurationError("https://provider.example names another issuer")
    assert reason_of(wrong) == "what it says of itself is refused"
    assert reason_of(StoreUnavailableError(reason="AutoReconnect")) == "AutoReconnect"
    assert reason_of(TimeoutError()) == "no answer in time"
    assert reason_of(RuntimeError("mongodb://user:password@host")) == "RuntimeError"


def test_the_view_of_a_replica_set() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    hello = {
        "setName": "rs0",
        "hosts": ["a", "b"],
        "arbiters": ["c"],
        "primary": "a",
        "lastWrite": {"lastWriteDate": now, "majorityWriteDate": now - timedelta(seconds=3)},
    }
    members = [
        {"state": 1, "optimeDate": now},
        {"state": 2, "optimeDate": now - timedelta(seconds=8)},
        {"state": 8},
    ]
    view = read_view(hello, {"members": members}, {"connections": {"current": 7, "available": 93}})
    assert (view.members, view.primary, view.majority_lag) == (3, True, 3.0)
    assert (view.healthy, view.slowest_lag, view.connections, view.connections_left) == (2, 8.0, 7, 93)
    bare = read_view({"setName": "rs0", "hosts": ["a"]}, None, None)
    assert (bare.primary, bare.healthy, bare.slowest_lag, bare.connections) == (False, None, None, None)
