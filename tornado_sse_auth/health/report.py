"""What checks found, as plain data, and the one sentence that is said of each trouble."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum

__all__ = ["Answer", "Finding", "Measurement", "Report", "Status", "Trouble"]


class Status(IntEnum):
    """Of one check, or the worst of all. The value is that of the gauge `check.<name>`."""

    PASS = 0
    WARN = 1
    FAIL = 2


@dataclass(frozen=True, slots=True)
class Measurement:
    """One observed value; `unit` is empty for a number of things or a word."""

    name: str
    value: float | int | str
    unit: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """What is wrong, whom it hurts, what to do; `detail` is what may differ each time. Never a secret, an address or
    a stack. Whole sentences are made of it: `what` is in the present perfect, `hurts` and `remedy` are clauses."""

    what: str
    hurts: str
    remedy: str
    detail: str = ""

    def sentence(self, since: float) -> str:
        """All of it in one sentence; `since` in epoch seconds."""
        when = datetime.fromtimestamp(since, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        detail = f" ({self.detail})" if self.detail else ""
        return f"Since {when} {self.what}{detail}: {self.hurts}; {self.remedy}."


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a check says. `trouble` stands beside every status but PASS. `rest`: seconds in which nobody may make the
    check ask again."""

    status: Status = Status.PASS
    trouble: Trouble | None = None
    measurements: tuple[Measurement, ...] = ()
    rest: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The newest answer of a check. Times in epoch seconds: `since`, when this trouble, or passing, began;
    `passed_at`, when it passed last (None: never yet). `latency` in seconds."""

    name: str
    component: str
    status: Status
    since: float
    checked_at: float
    passed_at: float | None
    latency: float
    trouble: Trouble | None
    measurements: tuple[Measurement, ...]

    @property
    def output(self) -> str | None:
        """The sentence for the reader; None when it passes."""
        return None if self.trouble is None else self.trouble.sentence(self.since)


@dataclass(frozen=True, slots=True, eq=False)
class Report:
    """All findings. `ready` is False when one fails, or while the server drains."""

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

    @property
    def output(self) -> str | None:
        """The sentence of the worst finding; None when all pass."""
        if self.draining:
            return (
                "The server is shutting down: it takes no new work and its streams move to other processes; "
                "nothing has to be done."
            )
        worst = max(self.findings, key=lambda finding: finding.status, default=None)
        return None if worst is None else worst.output
