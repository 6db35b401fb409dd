"""What a benchmark found, beside what was to be reached."""

from __future__ import annotations

import json
import platform
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

__all__ = ["Row", "as_json", "percentile", "table"]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One figure. `reach` is a lower bound where `at_least`, else an upper one; `value` is in the same unit."""

    name: str
    unit: str
    value: float
    reach: float
    at_least: bool = False
    project: float | None = None
    baseline: float | None = None
    detail: str = ""

    @property
    def met(self) -> bool:
        """Whether the figure reaches what it should."""
        return self.value >= self.reach if self.at_least else self.value <= self.reach


def percentile(values: Sequence[float], percent: int) -> float:
    """The inclusive percentile, as a person with a sorted list would read it."""
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def table(rows: Sequence[Row]) -> str:
    """As Markdown, so that it can be read here and pasted into a page."""
    lines = ["| what | project | baseline | result | reach | |", "|---|---|---|---|---|---|"]
    for row in rows:
        project, baseline = ("" if value is None else f"{value:.3g}" for value in (row.project, row.baseline))
        bound = "at least" if row.at_least else "at most"
        lines.append(
            f"| {row.name}{f' ({row.detail})' if row.detail else ''} | {project} | {baseline} "
            f"| {row.value:.3g} {row.unit} | {bound} {row.reach:g} {row.unit} | {'met' if row.met else 'MISSED'} |"
        )
    return "\n".join(lines)


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    processors = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "processor": processors[0].partition(":")[2].strip() if processors else platform.processor(),
        "processors": len(processors),
        "system": platform.platform(),
        "python": sys.version.split()[0],
        **{name: version(name) for name in ("tornado", "motor", "pymongo", "httpx", "authlib")},
    }


def as_json(rows: Sequence[Row]) -> str:
    """Rows and machine."""
    return json.dumps({"machine": machine(), "rows": [{**asdict(row), "met": row.met} for row in rows]}, indent=2)
