"""`/livez`, `/readyz`, `/health` as `application/health+json`. Probes come by address: no Host is checked here."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from tornado.web import RequestHandler

from ..health import Health, Report
from .handler import ErrorAnswers

__all__ = ["HealthHandler", "LiveHandler", "ReadyHandler"]


class _HealthHandler(ErrorAnswers, RequestHandler):
    sign_in_redirect = False
    health: Health

    def initialize(self, health: Health) -> None:
        """`health`: what is reported."""
        self.health = health

    def prepare(self) -> None:
        """Nobody is asked who they are."""
        self.identify_request()
        self.set_header("Content-Type", "application/health+json")


class LiveHandler(_HealthHandler):
    """200 while the loop turns."""

    def get(self) -> None:
        """Asks no dependency."""
        self.finish('{"status": "pass"}')


class ReadyHandler(_HealthHandler):
    """200 when requests may be sent here, else 503."""

    async def get(self) -> None:
        """The status alone."""
        report = await self.health.readiness()
        self.set_status(200 if report.ready else 503)
        self.finish(json.dumps({"status": report.status.name.lower()}))


class HealthHandler(_HealthHandler):
    """Every check with what it found."""

    async def get(self) -> None:
        """200 when ready, else 503, with the details."""
        report = await self.health.report()
        self.set_status(200 if report.ready else 503)
        self.finish(json.dumps(_document(report)))


def _document(report: Report) -> dict[str, object]:
    checks: dict[str, list[dict[str, object]]] = {}
    for finding in report.findings:
        entry: dict[str, object] = {
            "status": finding.status.name.lower(),
            "time": datetime.fromtimestamp(finding.checked_at, UTC).isoformat(timespec="seconds"),
            "observedValue": round(finding.latency * 1000, 1),
            "observedUnit": "ms",
        }
        if finding.output is not None:
            since = datetime.fromtimestamp(finding.since, UTC).isoformat(timespec="seconds")
            entry["output"] = f"{finding.output} Since {since}."
        checks[f"{finding.name}:responseTime"] = [entry]
    document: dict[str, object] = {"status": report.status.name.lower(), "checks": checks}
    if report.draining:
        document["output"] = "The server is shutting down and takes no new work."
    return document
