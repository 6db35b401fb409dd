"""`/livez`, `/readyz`, `/health` as `application/health+json`. Probes come by address: no Host is checked here."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from functools import lru_cache
from importlib.metadata import version
from typing import Any

from tornado.web import RequestHandler

from ..health import Finding, Health, Measurement, Report
from .handler import ErrorAnswers

__all__ = ["HealthHandler", "LiveHandler", "ReadyHandler"]

VERSION = version("tornado-sse-auth")
RETRY_AFTER = 1  # seconds: what does not pass is asked each second


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

    def answer(self, report: Report, body: str | bytes) -> None:
        """200 when ready; else 503, and when to look again: before a check has run anew there is nothing to see."""
        if not report.ready:
            self.set_status(503)
            self.set_header("Retry-After", str(RETRY_AFTER))
        self.finish(body)


class LiveHandler(_HealthHandler):
    """200 while the loop turns."""

    def get(self) -> None:
        """Asks no dependency."""
        self.finish('{"status": "pass"}')


class ReadyHandler(_HealthHandler):
    """200 when requests may be sent here, else 503."""

    async def get(self) -> None:
        """The status, and the worst trouble in a sentence."""
        report = await self.health.readiness()
        self.answer(report, json.dumps(_head(report)))


class HealthHandler(_HealthHandler):
    """Every check with what it found."""

    async def get(self) -> None:
        """200 when ready, else 503, with the details."""
        report = await self.health.report()
        self.answer(report, _document(report))


def _head(report: Report) -> dict[str, Any]:
    head = {"status": report.status.name.lower()}
    return head if report.output is None else {**head, "output": report.output}


@lru_cache(maxsize=2)  # a report is the same object until something was found: a storm of probes encodes it once
def _document(report: Report) -> bytes:
    checks: dict[str, list[dict[str, Any]]] = {}
    for finding in report.findings:
        checks[f"{finding.name}:responseTime"] = [_entry_of(finding)]
        for measurement in finding.measurements:
            checks[f"{finding.name}:{measurement.name}"] = [_value_of(measurement, finding)]
    head = {**_head(report), "version": VERSION, "releaseId": VERSION, "serviceId": "tornado_sse_auth"}
    return json.dumps({**head, "checks": checks}).encode()


def _entry_of(finding: Finding) -> dict[str, Any]:
    """What the check itself says (draft-inadarei-api-health-check-06, section 4)."""
    entry: dict[str, Any] = {
        "componentType": finding.component,
        "status": finding.status.name.lower(),
        "observedValue": round(finding.latency * 1000, 1),
        "observedUnit": "ms",
        "time": _iso(finding.checked_at),
        "since": _iso(finding.since),
    }
    if finding.output is not None:
        entry["output"] = finding.output
        entry["lastPass"] = None if finding.passed_at is None else _iso(finding.passed_at)
    return entry


def _value_of(measurement: Measurement, finding: Finding) -> dict[str, Any]:
    entry: dict[str, Any] = {"componentType": finding.component, "observedValue": measurement.value}
    if measurement.unit:
        entry["observedUnit"] = measurement.unit
    return {**entry, "time": _iso(finding.checked_at)}


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
