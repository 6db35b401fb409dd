"""The Graphite dashboard of docs/graphite: its graphs, and the file that graphite-web imports."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from tornado_sse_auth.metrics import TARGETS

FOLDER = Path(__file__).parents[2] / "docs" / "graphite"
DASHBOARD = FOLDER / "dashboard.json"
URLS = FOLDER / "render-urls.txt"
NAME = "tornado_sse_auth"
TIMERS, COUNTERS, GAUGES = (f"stats.{kind}.tornado_sse_auth" for kind in ("timers", "counters", "gauges"))

# One for each check: Graphite's own list is shorter, and two checks would share a color.
FIFTEEN = (
    *("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#7f7f7f"),
    *("#bcbd22", "#17becf", "#000000", "#aec7e8", "#ffbb78", "#98df8a", "#c5b0d5"),
)


@dataclass(frozen=True)
class Graph:
    """One picture. `slug` names its file."""

    slug: str
    title: str
    unit: str
    targets: tuple[str, ...]
    lowest: float = 0.0
    highest: float | None = None
    colors: tuple[str, ...] = ()

    def params(self) -> dict[str, Any]:
        """As graphite-web takes them."""
        limits: dict[str, Any] = {"yMin": self.lowest}
        if self.highest is not None:
            limits["yMax"] = self.highest
        if self.colors:
            limits["colorList"] = ",".join(self.colors)
        return {
            "title": self.title,
            "vtitle": self.unit,
            "target": list(self.targets),
            "hideLegend": "false",  # of many lines, too
            "lineMode": "connected",  # seconds in which nothing was measured leave no hole
            **limits,
        }

    def url(self, **more: Any) -> str:
        """The path and query that draw it."""
        return "/render?" + urlencode({**self.params(), **more}, doseq=True)


def _over_instances(function: str, gauge: str) -> str:
    """A gauge of all processes: each instance has its own name."""
    return f"{function}(group({GAUGES}.{gauge},{GAUGES}.{gauge}.*))"


def _timer(timer: str, title: str) -> Graph:
    """Half, 95 and 99 of a hundred, and the target, where there is one."""
    percentiles = tuple(
        f"color(alias({TIMERS}.{timer}.upper_{percent},'p{percent}'),'{color}')"
        for percent, color in ((99, "#b0b0b0"), (95, "#1f77b4"), (50, "#2ca02c"))
    )
    limit = TARGETS.get(timer)
    target = () if limit is None else (f"alias(dashed(threshold({limit * 1000:g},'target','#d62728')),'target')",)
    return Graph(timer.replace(".", "-"), title, "ms", (*percentiles, *target))


def _counts(slug: str, title: str, **series: str) -> Graph:
    targets = tuple(
        f"alias(sumSeries({COUNTERS}.{pattern}.rate),'{name.replace('_', ' ')}')" for name, pattern in series.items()
    )
    return Graph(slug, title, "a second", targets)


GRAPHS: tuple[Graph, ...] = (
    Graph(
        "streams",
        "Open streams, and the sessions behind them",
        "",
        tuple(
            f"alias({_over_instances('sumSeries', gauge)},'{name}')"
            for gauge, name in (("stream.open", "streams"), ("session.active", "sessions"))
        ),
    ),
    _counts(
        "validations",
        "Session validations",
        from_the_cache="session.validate.hit",
        from_the_store="session.validate.miss",
        refused="session.validate.rejected",
    ),
    _timer("session.validate", "Session validation"),
    _timer("store.lookup", "Store look-up"),
    _timer("token.refresh", "Token refresh"),
    _timer("provider.check", "Provider check"),
    _counts(
        "refreshes",
        "Token refreshes",
        success="token.refresh.success",
        transient="token.refresh.transient",
        permanent="token.refresh.permanent",
        presented_again="token.refresh.reattempt",
    ),
    Graph(
        "schedule",
        "Refresh schedule",
        "ms",
        (
            f"alias({_over_instances('maxSeries', 'refresh.lag_ms')},'lag in ms')",
            f"alias(secondYAxis({_over_instances('sumSeries', 'refresh.scheduled')}),'scheduled sessions (right)')",
        ),
    ),
    Graph(
        "ends",
        "Why streams end",
        "a second",
        (f"aliasByNode({COUNTERS}.stream.closed.*.rate,5)",),
    ),
    Graph("errors", "Answers by error code", "a second", (f"aliasByNode({COUNTERS}.auth.error.*.rate,5)",)),
    Graph(
        "missed",
        "Operations over their target",
        "a second",
        (f"aliasByNode({COUNTERS}.target.missed.*.*.rate,5,6)",),
    ),
    Graph(
        "health",
        "Health: 0 pass, 1 warn, 2 fail",
        "",
        (f"groupByNode(group({GAUGES}.check.*,{GAUGES}.check.*.*),4,'maxSeries')",),
        highest=2.2,
        colors=FIFTEEN,
    ),
)


def definition() -> dict[str, Any]:
    """What `Dashboard > Edit Dashboard` shows and takes."""
    return {
        "name": NAME,
        "defaultGraphParams": {"from": "-2hours", "until": "now", "width": 500, "height": 260},
        "graphSize": {"width": 500, "height": 260},
        "refreshConfig": {"enabled": True, "interval": 60_000},
        "timeConfig": {
            "type": "relative",
            "relativeStartQuantity": "2",
            "relativeStartUnits": "hours",
            "relativeUntilQuantity": "",
            "relativeUntilUnits": "now",
            "startDate": "2026-01-01T00:00:00",
            "startTime": "9:00 AM",
            "endDate": "2026-01-01T00:00:00",
            "endTime": "5:00 PM",
        },
        "graphs": [[list(graph.targets), graph.params(), graph.url()] for graph in GRAPHS],
    }


def text() -> str:
    """The file."""
    return json.dumps(definition(), indent=2) + "\n"


def urls() -> str:
    """The other file: a title, and the path and query that draw it."""
    return "".join(
        f"{graph.title}\n{graph.url(**{'from': '-2hours', 'width': 620, 'height': 240})}\n\n" for graph in GRAPHS
    )
