"""What a soak found, and what of it must not be."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

MIB = 2**20


@dataclass(frozen=True)
class Usage:
    """Of one process: resident memory in bytes, open descriptors."""

    memory: int
    descriptors: int


@dataclass(kw_only=True)
class Findings:
    """The figures of one scenario. `failures` are sentences about what must not happen; any of them fails the run."""

    scenario: str
    refreshes: int = 0
    doubles: Counter[str] = field(default_factory=Counter)
    """Refresh tokens presented a second time, by what was known of the first time."""
    sessions_lost: Counter[str] = field(default_factory=Counter)
    events_published: int = 0
    events_lost: int = 0
    events_doubled: int = 0
    streams_closed: Counter[str] = field(default_factory=Counter)
    """By the server, by reason."""
    unauthorized: int = 0
    """401 answers to sessions that were alive: each should have been a 503."""
    recoveries: list[float] = field(default_factory=list)
    """Seconds until everything worked again: from the beginning of a fault of the database, from the end of others."""
    usage: dict[str, tuple[Usage, Usage]] = field(default_factory=dict)
    """At the start and at the end, by process."""
    loop_lag: float | None = None
    """p99 in milliseconds of what a server with nothing to do for an answer takes to give it."""
    notes: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    promises: list[tuple[bool, str]] = field(default_factory=list)
    """What was promised, with its figure, and whether it holds."""

    def promise(self, holds: bool, text: str) -> None:
        """Report `text` as held or not; a failure where it is not."""
        self.promises.append((holds, text))
        self.must(holds, text)

    def must(self, condition: bool, otherwise: str) -> None:
        """Note a failure where `condition` does not hold."""
        if not condition:
            self.failures.append(otherwise)

    def report(self) -> str:
        """For a person to read and a programme to search."""
        worst = f"{max(self.recoveries):.1f} s in {len(self.recoveries)} faults" if self.recoveries else "no fault"
        lag = "not measured" if self.loop_lag is None else f"{self.loop_lag:.1f} ms"
        lines = {
            "refreshes": str(self.refreshes),
            "presented twice": _counted(self.doubles),
            "sessions lost": _counted(self.sessions_lost),
            "events": f"{self.events_published} published, {self.events_lost} lost, {self.events_doubled} doubled",
            "streams closed by us": _counted(self.streams_closed),
            "401 instead of 503": str(self.unauthorized),
            "worst time to recovery": worst,
            "loop lag, p99": lag,
        }
        for name, (start, end) in self.usage.items():
            memory = f"{start.memory / MIB:.0f} -> {end.memory / MIB:.0f} MiB"
            lines[name] = f"{memory}, {start.descriptors} -> {end.descriptors} descriptors"
        width = max(map(len, lines)) + 2
        rows = [f"  {name:<{width}}{value}" for name, value in lines.items()]
        rows += [f"  {note}" for note in self.notes]
        rows += [f"  {'holds' if holds else 'BROKEN'}: {text}" for holds, text in self.promises]
        rows += [f"  FAILED: {failure}" for failure in self.failures]
        return "\n".join([f"{self.scenario}:", *rows])


def _counted(counter: Mapping[str, int]) -> str:
    total = sum(counter.values())
    causes = ", ".join(f"{name} {count}" for name, count in sorted(counter.items()))
    return f"{total} ({causes})" if total else "0"
