"""Checks of what the server stands on, run in the background and kept; reading the report asks nobody."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum

from .clock import Clock
from .metrics import Metrics
from .periodic import MonotonicPeriodicCallback

__all__ = ["Check", "Finding", "Health", "Report", "Status"]

_log = logging.getLogger(__name__)

INTERVAL = 10.0
INTERVAL_FAILING = 1.0
MAX_AGE = 1.0
CHECK_TIMEOUT = 1.2
WATCH = 60.0


class Status(IntEnum):
    """Of one check, or the worst of all. The value is that of the gauge `check.<name>`."""

    PASS = 0
    WARN = 1
    FAIL = 2


@dataclass(frozen=True, slots=True)
class Check:
    """A question to a dependency. `ask` returns, or raises; `severity` is what a failure means, `output` what to tell
    the reader of the report: what, whom it hurts, what to do. Never a secret, an address or a stack."""

    name: str
    ask: Callable[[], Awaitable[None]]
    severity: Status
    output: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What a check last found. `since` (epoch seconds): when the status became what it is; `latency` in seconds."""

    name: str
    status: Status
    since: float
    checked_at: float
    latency: float
    output: str | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """All findings. `status` is the worst of them; `ready` is False when one fails, or while the server drains."""

    findings: tuple[Finding, ...]
    draining: bool

    @property
    def status(self) -> Status:
        """The worst of all."""
        worst = max((finding.status for finding in self.findings), default=Status.PASS)
        return Status.FAIL if self.draining else worst

    @property
    def ready(self) -> bool:
        """May requests be sent here?"""
        return self.status is not Status.FAIL


class Health:
    """Runs the checks each 10 s, each second while one does not pass, and on demand when a probe finds them older than
    a second; one round at a time, each check bounded."""

    def __init__(self, checks: Sequence[Check], *, metrics: Metrics, clock: Clock) -> None:
        self._checks = tuple(checks)
        self._metrics = metrics
        self._clock = clock
        self._findings: dict[str, Finding] = {}
        self._round: asyncio.Task[None] | None = None
        self._begun_at = float("-inf")
        self._asked_at = float("-inf")
        self._periodic: MonotonicPeriodicCallback | None = None
        self.draining = False

    async def start(self) -> None:
        """The first round, then one by one in the background."""
        await self._renew()
        self._periodic = MonotonicPeriodicCallback(self._tick, INTERVAL_FAILING * 1000)
        self._periodic.start()

    async def close(self) -> None:
        """Stop checking. Twice is once."""
        if self._periodic is not None:
            self._periodic.stop()
            self._periodic = None
        if self._round is not None:
            self._round.cancel()
            await asyncio.gather(self._round, return_exceptions=True)

    @property
    def watched(self) -> bool:
        """Whether somebody has asked for readiness within the last minute: a load balancer, an orchestrator."""
        return self._clock.monotonic() - self._asked_at < WATCH

    async def readiness(self) -> Report:
        """The report, for those who send requests here as long as it says ready."""
        self._asked_at = self._clock.monotonic()
        return await self.report()

    async def report(self) -> Report:
        """What is known, not older than a second; bounded by the checks' own time limit."""
        if self._clock.monotonic() - self._begun_at > MAX_AGE and not self.draining:
            await self._renew()
        return self.latest

    @property
    def latest(self) -> Report:
        """What is known, however old; asks nobody."""
        return Report(tuple(self._findings.values()), self.draining)

    def _tick(self) -> None:
        passing = all(finding.status is Status.PASS for finding in self._findings.values())
        interval = INTERVAL if passing else INTERVAL_FAILING
        if self._clock.monotonic() - self._begun_at >= interval:
            self._begin()

    def _begin(self) -> asyncio.Task[None]:
        if self._round is None or self._round.done():
            self._begun_at = self._clock.monotonic()
            self._round = asyncio.create_task(self._run_all(), name="health checks")
        return self._round

    async def _renew(self) -> None:
        await asyncio.wait({self._begin()}, timeout=CHECK_TIMEOUT + 0.2)

    async def _run_all(self) -> None:
        await asyncio.gather(*map(self._run, self._checks))

    async def _run(self, check: Check) -> None:
        started = self._clock.monotonic()
        try:
            async with asyncio.timeout(CHECK_TIMEOUT):
                await check.ask()
        except Exception as error:  # whatever a dependency raises means that it does not work
            _log.warning("check %s: %r", check.name, error)
            status = check.severity
        else:
            status = Status.PASS
        now = self._clock.time()
        known = self._findings.get(check.name)
        since = known.since if known is not None and known.status is status else now
        self._findings[check.name] = Finding(
            name=check.name,
            status=status,
            since=since,
            checked_at=now,
            latency=self._clock.monotonic() - started,
            output=None if status is Status.PASS else check.output,
        )
        self._metrics.gauge(f"check.{check.name}", int(status))
