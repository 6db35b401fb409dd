"""Where the time of an authenticated request goes: the server under cProfile, by package."""

from __future__ import annotations

import pstats
import tempfile
from collections import Counter
from pathlib import Path
from typing import cast

from tests.benchmarks.load import running, statsd

REQUESTS = 8000
SHOWN = 0.01


def profile() -> str:
    """A table of time spent in functions of each module themselves, in a request with its session in the cache."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "profile")
        with statsd() as port, running("cached", statsd=port, profile=file) as server:
            server.requests(REQUESTS)
        stats = cast(
            "dict[tuple[str, int, str], tuple[int, int, float, float, object]]",
            pstats.Stats(str(file)).stats,  # type: ignore[attr-defined]  # typeshed leaves it out
        )
    spent: Counter[str] = Counter()
    for (path, _, function), (_, _, own, _, _) in stats.items():
        spent[_place(path, function)] += own  # type: ignore[assignment]  # seconds are counted too
    del spent["waiting"]
    total = sum(spent.values())
    lines = ["| where | share |", "|---|---|"]
    lines += [f"| {place} | {own / total:.1%} |" for place, own in spent.most_common() if own / total >= SHOWN]
    return "\n".join(lines)


def _place(path: str, function: str) -> str:
    if "select.epoll" in function or "select.poll" in function:
        return "waiting"
    if path == "~":
        return f"`{function.strip('<>')}`"
    parts = Path(path).parts
    for package in ("tornado_sse_auth", "tornado", "asyncio"):
        if package in parts:
            return "/".join(parts[parts.index(package) :])
    return Path(path).name
