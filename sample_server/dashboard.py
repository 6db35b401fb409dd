"""`/dashboard`: what this process does right now, told each second to everybody who looks."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tornado.web import RequestHandler

from tornado_sse_auth import EventStream, SSEAuthenticationMiddleware, SSEAuthMixin
from tornado_sse_auth.metrics import TARGETS
from tornado_sse_auth.observations import Interval
from tornado_sse_auth.periodic import MonotonicPeriodicCallback

from .audit_trail import AuditTrail, Line

__all__ = ["SCOPE", "Dashboard", "DashboardEventsHandler"]

SCOPE = "dashboard:read"
KEPT = 300  # seconds of history
MINUTES_AHEAD = 10
DUE_EVERY = 5.0  # seconds between counts of the whole schedule
LATELY = 20.0  # seconds over which a rate is taken
TELLING = 3.0  # seconds from which on a slot that is still running has one
OUTCOMES = ("success", "transient", "permanent")
VALIDATIONS = ("hit", "miss", "rejected")


class Dashboard:
    """One look at the process a second, for all open dashboards together; none while nobody looks but at the number of
    open streams, whose last five minutes it keeps."""

    def __init__(self, auth: SSEAuthenticationMiddleware) -> None:
        self._auth = auth
        self._streams: deque[tuple[int, int]] = deque(maxlen=KEPT)
        self._viewers: dict[EventStream, None] = {}
        self._due: list[int] = []
        self._due_at = float("-inf")
        self._periodic = MonotonicPeriodicCallback(self._look, 1000)
        self.trail = AuditTrail(self._on_audit)

    def start(self) -> None:
        """Begin to look."""
        self._periodic.start()

    def stop(self) -> None:
        """Look no more."""
        self._periodic.stop()

    @contextmanager
    def follow(self, stream: EventStream) -> Iterator[None]:
        """Tell `stream` what was seen lately, and what is seen as long as the block lasts."""
        stream.offer(self._history(stream.user.user_id), event="history")
        stream.offer(self._figures(), event="figures")
        self._viewers[stream] = None
        try:
            yield
        finally:
            del self._viewers[stream]

    def _look(self) -> None:
        self._streams.append((int(self._auth.clock.time()), len(self._auth.registry)))
        if self._viewers:
            figures = json.dumps(self._figures(), separators=(",", ":"))
            for stream in tuple(self._viewers):
                stream.offer(figures, event="figures")

    def _on_audit(self, user_id: str, line: Line) -> None:
        for stream in tuple(self._viewers):
            if stream.user.user_id == user_id:
                stream.offer(dict(line), event="audit")

    def _history(self, user_id: str) -> dict[str, Any]:
        return {
            "targets": {name: _milliseconds(limit) for name, limit in TARGETS.items()},
            "slots": [_slot(interval) for interval in self._auth.observations.history()],
            "streams": list(self._streams),
            "audit": [dict(line) for line in self.trail.of(user_id)],
        }

    def _figures(self) -> dict[str, Any]:
        auth = self._auth
        seen = auth.observations
        timings = {name: seen.timing_of(name) for name in TARGETS}
        return {
            "at": int(auth.clock.time()),
            "streams": len(auth.registry),
            "sessions": auth.registry.active_sessions,
            "validations": {kind: seen.rate_of(f"session.validate.{kind}", LATELY) for kind in VALIDATIONS},
            "timers": {
                name: {
                    "p95": _milliseconds(timing.p95) if timing.count else None,
                    "samples": timing.count,
                    "met": timing.target_met,
                }
                for name, timing in timings.items()
            },
            "slots": [_slot(interval) for interval in seen.history(LATELY)],
            "due": self._due_by_minute(),
            "health": [
                {
                    "name": finding.name,
                    "status": finding.status.name.lower(),
                    "ms": _milliseconds(finding.latency),
                    "output": finding.output,
                }
                for finding in auth.health.latest.findings
            ],
        }

    def _due_by_minute(self) -> list[int]:
        now = self._auth.clock.monotonic()
        if now - self._due_at >= DUE_EVERY:
            self._due, self._due_at = self._auth.refresh_manager.due_by_minute(MINUTES_AHEAD), now
        return self._due


class DashboardEventsHandler(SSEAuthMixin, RequestHandler):
    """`/dashboard/events`: `history` at once, `figures` each second, and the user's own lines of the audit log."""

    def initialize(self, dashboard: Dashboard, scopes: frozenset[str]) -> None:
        """`dashboard`: the process's one; `scopes`: what its viewers need."""
        self._dashboard = dashboard
        self._scopes = scopes

    async def get(self) -> None:
        """Lives until one side ends it."""
        self.require(scopes=self._scopes)
        async with self.event_stream() as stream:
            with self._dashboard.follow(stream):
                await stream.over()


def _slot(interval: Interval) -> dict[str, Any]:
    validations = sum(interval.counts.get(f"session.validate.{kind}", 0) for kind in VALIDATIONS)
    return {
        "at": round(interval.started_at),
        "validations": round(validations / interval.seconds, 2) if interval.seconds >= TELLING else None,
        "p95": {
            name: _milliseconds(interval.timers[name].p95) if name in interval.timers else None for name in TARGETS
        },
        "refreshes": {outcome: interval.counts.get(f"token.refresh.{outcome}", 0) for outcome in OUTCOMES},
    }


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 2)
