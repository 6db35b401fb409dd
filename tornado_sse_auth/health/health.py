"""Checks that run in the background and are kept; a probe costs nothing but what has become old."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from ..clock import Clock
from ..metrics import Metrics
from ..periodic import MonotonicPeriodicCallback
from .check import Check, reason_of
from .report import Answer, Finding, Report, Status

__all__ = ["Health"]

_log = logging.getLogger(__name__)

INTERVAL = 10.0
INTERVAL_FAILING = 1.0
MAX_AGE = 1.0
CHECK_TIMEOUT = 1.2
ANSWER_TIMEOUT = 1.3
WATCH = 60.0


class Health:
    """Runs each check each 10 s, each second while it does not pass, and on demand when a probe finds its answer older
    than a second; single flight, each bounded. A report is there within 1.3 s, whatever hangs."""

    def __init__(self, checks: Sequence[Check], *, metrics: Metrics, clock: Clock) -> None:
        self._metrics = metrics
        self._clock = clock
        self._probes = [_Probe(check, self) for check in checks]
        self._periodic = MonotonicPeriodicCallback(self._tick, INTERVAL_FAILING * 1000)
        self._report: Report | None = None
        self._readiness_asked_at = float("-inf")
        self._draining = False

    async def start(self) -> None:
        """The first round, then one by one in the background."""
        await self._answered([probe.renew() for probe in self._probes])
        self._periodic.start()

    async def close(self) -> None:
        """Stop checking. Twice is once."""
        self._periodic.stop()
        for probe in self._probes:
            await probe.close()
            self._metrics.gauge(f"check.{probe.check.name}", 0)

    def drain(self) -> None:
        """Not ready from now on; nothing is asked any more."""
        self._draining = True
        self._report = None

    @property
    def watched(self) -> bool:
        """Whether somebody has asked for readiness within the last minute: a load balancer, an orchestrator."""
        return self._clock.monotonic() - self._readiness_asked_at < WATCH

    async def readiness(self) -> Report:
        """The report, for those who send requests here as long as it says ready."""
        self._readiness_asked_at = self._clock.monotonic()
        return await self.report()

    async def report(self) -> Report:
        """What is known, not older than a second where a check answers in time.

        Nobody waits for a check that does not pass: it is asked each second anyway, and a storm of probes that all
        waited for it would all be answered in the same moment.
        """
        now = self._clock.monotonic()
        if not self._draining:
            old = [(probe.passes, probe.renew()) for probe in self._probes if probe.older_than(MAX_AGE, now)]
            awaited = [flight for passes, flight in old if passes is not False]
            if awaited:
                await self._answered(awaited)
        return self.latest

    @property
    def latest(self) -> Report:
        """What is known, however old; asks nobody. The same object until something was found."""
        if self._report is None:
            findings = tuple(probe.finding for probe in self._probes if probe.finding is not None)
            self._report = Report(findings, self._draining)
        return self._report

    async def _answered(self, flights: Sequence[asyncio.Task[None]]) -> None:
        _, late = await asyncio.wait(flights, timeout=ANSWER_TIMEOUT)
        for probe in self._probes:
            if probe.flight in late:
                probe.late()

    def _tick(self) -> None:
        now = self._clock.monotonic()
        for probe in self._probes:
            if probe.due(INTERVAL if probe.passes else INTERVAL_FAILING, now):
                probe.renew()

    def found(self, finding: Finding, *, instead_of: Finding | None) -> None:
        """A check has answered: tell the gauge, and the log what is new."""
        self._report = None
        self._metrics.gauge(f"check.{finding.name}", int(finding.status))
        before = instead_of
        if finding.output is not None:
            if before is None or before.status is not finding.status or before.since != finding.since:
                _log.warning("check %s: %s. %s", finding.name, finding.status.name.lower(), finding.output)
        elif before is not None and before.status is not Status.PASS:
            _log.warning("check %s: passes again, after %.0f s", finding.name, finding.since - before.since)


class _Probe:
    """One check, its newest finding, and the flight that renews it."""

    def __init__(self, check: Check, health: Health) -> None:
        self.check = check
        self.finding: Finding | None = None
        self.flight: asyncio.Task[None] | None = None
        self._health = health
        self._clock = health._clock
        self._begun_at = self._answered_at = float("-inf")
        self._rest = 0.0

    @property
    def passes(self) -> bool | None:
        """None before the first answer."""
        return None if self.finding is None else self.finding.status is Status.PASS

    def older_than(self, age: float, now: float) -> bool:
        """Whether the newest answer is. While a flight is under way it stays so, and who asks waits for that."""
        return now - self._answered_at >= max(age, self._rest)

    def due(self, interval: float, now: float) -> bool:
        """Whether it is time to ask again, `interval` seconds after the last time."""
        return now - self._begun_at >= interval and now - self._answered_at >= self._rest

    def renew(self) -> asyncio.Task[None]:
        if self.flight is None or self.flight.done():
            self._begun_at = self._clock.monotonic()
            self.flight = asyncio.create_task(self._ask(), name=f"health check {self.check.name}")
        return self.flight

    async def close(self) -> None:
        if self.flight is not None:
            self.flight.cancel()
            await asyncio.wait({self.flight}, timeout=CHECK_TIMEOUT)
        await self.check.close()

    def late(self) -> None:
        """The check does not even end when it is cancelled."""
        self._note(self.check.unanswered("no answer in time"))

    async def _ask(self) -> None:
        try:
            async with asyncio.timeout(CHECK_TIMEOUT):
                answer = await self.check.ask()
        except Exception as error:  # whatever is raised means that there is no answer
            answer = self.check.unanswered(reason_of(error))
            _log.debug("check %s", self.check.name, exc_info=error)
        self._note(answer)

    def _note(self, answer: Answer) -> None:
        now = self._clock.time()
        self._answered_at = self._clock.monotonic()
        before = self.finding
        same = before is not None and before.status is answer.status and _what(before) == _what(answer)
        passed_at = now if answer.status is Status.PASS else before.passed_at if before is not None else None
        self._rest = answer.rest
        self.finding = Finding(
            name=self.check.name,
            component=self.check.component,
            status=answer.status,
            since=before.since if before is not None and same else now,
            checked_at=now,
            passed_at=passed_at,
            latency=self._answered_at - self._begun_at,
            trouble=answer.trouble,
            measurements=answer.measurements,
        )
        self._health.found(self.finding, instead_of=before)


def _what(said: Finding | Answer) -> str | None:
    return None if said.trouble is None else said.trouble.what
