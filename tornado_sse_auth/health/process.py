"""Checks of this process: is the loop on time, is there room, are tokens refreshed, are the targets met."""

from __future__ import annotations

import asyncio
import os
import resource

from ..metrics import TARGETS
from ..observations import Observations, TimerSummary
from ..refresh import RefreshManager
from ..streams import StreamRegistry
from .check import Check, milliseconds
from .loop_lag import LoopLag
from .report import Answer, Measurement, Status, Trouble

__all__ = ["DescriptorsCheck", "LoopCheck", "RefreshCheck", "StreamsCheck", "TargetsCheck"]

HELD_UP = 1.0
OFTEN_LATE = 0.1
RECENTLY = 10.0
NEARLY_FULL = 0.9
LATE = 30.0
DESCRIPTORS_LEFT = 0.1
DESCRIPTORS = "/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd"


class LoopCheck(Check):
    """Whether the event loop gets round."""

    name = "loop"
    component = "system"

    def __init__(self, lag: LoopLag) -> None:
        self._lag = lag

    async def ask(self) -> Answer:
        worst, p95 = self._lag.worst(RECENTLY), self._lag.percentile(0.95)
        measurements = (milliseconds("lag", worst), milliseconds("lagP95", p95))
        if worst < HELD_UP and p95 < OFTEN_LATE:
            return Answer(measurements=measurements)
        trouble = Trouble(
            what="the event loop has been held up",
            detail=f"by {worst:.1f} s in the last {RECENTLY:.0f} s, p95 of a minute {p95 * 1000:.0f} ms",
            hurts="every request and every stream of this process waits meanwhile",
            remedy="find the call that does not await (asyncio's debug mode names it), or give the process more CPU",
        )
        return Answer(status=Status.WARN, trouble=trouble, measurements=measurements)


class StreamsCheck(Check):
    """Whether there is room for more streams."""

    name = "streams"
    component = "component"

    def __init__(self, registry: StreamRegistry) -> None:
        self._registry = registry

    async def ask(self) -> Answer:
        opened, limit = len(self._registry), self._registry.limit
        measurements = (
            Measurement("open", opened),
            Measurement("sessions", self._registry.active_sessions),
            Measurement("limit", limit),
        )
        if opened < NEARLY_FULL * limit:
            return Answer(measurements=measurements)
        trouble = Trouble(
            what="this process has had little room for more streams",
            detail=f"{opened} of {limit} are open",
            hurts="beyond the limit new streams get 503, and nobody is evicted",
            remedy="add processes, or raise --max-streams and the limit of open files",
        )
        return Answer(status=Status.WARN, trouble=trouble, measurements=measurements)


class RefreshCheck(Check):
    """Whether the tokens of open streams are refreshed in time."""

    name = "refresh"
    component = "component"

    def __init__(self, manager: RefreshManager, observations: Observations) -> None:
        self._manager = manager
        self._observations = observations

    async def ask(self) -> Answer:
        manager, counts = self._manager, self._observations.counts()
        failing, longest, overdue = manager.failing, manager.longest_failing, manager.overdue
        measurements = (
            Measurement("scheduled", manager.scheduled),
            milliseconds("lag", max(manager.lag, overdue)),
            Measurement("oldestUnrefreshed", round(max(longest, overdue), 1), "s"),
            *(Measurement(f"failing.{kind}", count) for kind, count in sorted(failing.items())),
            *(
                Measurement(f"{outcome}In5min", counts.get(f"token.refresh.{outcome}", 0))
                for outcome in ("success", "transient", "permanent")
            ),
        )
        if max(longest, overdue) <= LATE:
            return Answer(measurements=measurements)
        classes = ", ".join(f"{count} {kind}" for kind, count in sorted(failing.items())) or "the schedule is behind"
        trouble = Trouble(
            what="tokens have not been refreshed in time",
            detail=f"{classes}; the oldest for {max(longest, overdue):.0f} s",
            hurts="calls to other services on behalf of these users get 503 once their tokens expire; streams go on",
            remedy="look at the checks of provider, store and loop (refreshes give way to requests), and for the "
            "sessions in the audit log",
        )
        return Answer(status=Status.WARN, trouble=trouble, measurements=measurements)


REMEDIES = {
    "session.validate": "look at store.lookup and at the loop's lag",
    "store.lookup": "look at the replica set's load and the network to it",
    "token.refresh": "look at the provider's own status and its distance",
    "provider.check": "look at the provider's own status and its distance",
}


class TargetsCheck(Check):
    """Whether operations keep what they promise: at least 95 % within the target, judged from 20 on."""

    name = "targets"
    component = "component"

    def __init__(self, observations: Observations) -> None:
        self._observations = observations

    async def ask(self) -> Answer:
        seen = [self._observations.timing_of(name) for name in TARGETS]
        measurements = tuple(
            Measurement(f"{summary.name}.{name}", value, unit)
            for summary in seen
            for name, value, unit in (
                ("p95", round(summary.p95 * 1000, 2), "ms"),
                ("measured", summary.count, ""),
                ("target", {None: "not judged", True: "met", False: "missed"}[summary.target_met], ""),
            )
        )
        missed = [summary for summary in seen if summary.target_met is False]
        if not missed:
            return Answer(measurements=measurements)
        trouble = Trouble(
            what=f"the target of {' and of '.join(summary.name for summary in missed)} has been missed",
            detail=", ".join(map(_told, missed)),
            hurts="users wait longer than was promised",
            remedy="; ".join(dict.fromkeys(REMEDIES[summary.name] for summary in missed)),
        )
        return Answer(status=Status.WARN, trouble=trouble, measurements=measurements)


def _told(summary: TimerSummary) -> str:
    assert summary.target is not None  # noqa: S101 - one without a target is never missed
    return f"p95 {summary.p95 * 1000:.0f} ms instead of {summary.target * 1000:.0f} ms over {summary.count}"


class DescriptorsCheck(Check):
    """Whether the process can still open sockets."""

    name = "descriptors"
    component = "system"

    async def ask(self) -> Answer:
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        used = len(await asyncio.to_thread(os.listdir, DESCRIPTORS))
        measurements = (Measurement("used", used), Measurement("left", limit - used))
        if limit - used > DESCRIPTORS_LEFT * limit:
            return Answer(measurements=measurements)
        trouble = Trouble(
            what="this process has had few file descriptors left",
            detail=f"{limit - used} of {limit}",
            hurts="it soon refuses connections, and reaches neither the store nor the provider",
            remedy="raise the limit of open files (LimitNOFILE), or add processes",
        )
        return Answer(status=Status.WARN, trouble=trouble, measurements=measurements)
