"""Where the time of an authenticated request goes: the server under cProfile, by package and by step of ours."""

from __future__ import annotations

import pstats
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any, cast

from tests.benchmarks.load import running, statsd
from tests.parts import mongod

REQUESTS = 6000
CONNECTIONS = 32
SHOWN = 0.005
PACKAGES = ("tornado_sse_auth", "tornado", "pymongo", "bson", "asyncio")
OURS = "tornado_sse_auth"
LEVELS = 8  # up which time of what belongs to nobody is handed to its callers

Function = tuple[str, int, str]
Profile = dict[Function, tuple[int, int, float, float, dict[Function, tuple[int, int, float, float]]]]


def profile() -> str:
    """Tables for a session in the cache, and for one that MongoDB is asked for through PyMongo."""
    with tempfile.TemporaryDirectory() as folder, statsd() as port, mongod.shared() as servers:
        file = Path(folder, "profile")
        at = {"mongo": servers.uri, "database": "benchmark_profile", "sessions": CONNECTIONS}
        tables = []
        try:
            for title, name, options in (
                ("session in the cache", "cached", {}),
                ("MongoDB asked, PyMongo", "uncached_pymongo", at),
            ):
                with running(name, statsd=port, profile=file, **options) as server:
                    server.requests(REQUESTS, CONNECTIONS)
                tables.append(f"{title}\n\n{_tables(_read(file))}")
        finally:
            mongod.drop_database(servers.uri, "benchmark_profile")
    return "\n\n".join(tables)


def _read(file: Path) -> Profile:
    found = cast(Profile, pstats.Stats(str(file)).stats)  # type: ignore[attr-defined]  # typeshed leaves it out
    return {function: entry for function, entry in found.items() if not _waits(function)}


def _tables(found: Profile) -> str:
    total = sum(own for _, _, own, _, _ in found.values())
    shares = _by_package(found)
    lines = ["| package | share |", "|---|---|"]
    lines += [f"| {place} | {own / total:.0%} |" for place, own in shares.most_common() if own / total >= SHOWN]
    steps = sorted(
        ((whole / total, file, name) for (file, _, name), (_, _, _, whole, _) in found.items() if _step(file, name)),
        reverse=True,
    )
    lines += ["", "| step of ours, with all it calls | share |", "|---|---|"]
    lines += [f"| `{_module(file)}`: `{name}` | {share:.1%} |" for share, file, name in steps if share >= SHOWN]
    return "\n".join(lines)


def _by_package(found: Profile) -> Counter[str]:
    """Own time. What the interpreter and its library spend is their callers'; only the system call has its own row."""
    spent: Counter[Any] = Counter({function: own for function, (_, _, own, _, _) in found.items()})
    shares: Counter[str] = Counter()
    for _ in range(LEVELS):
        handed_on: Counter[Any] = Counter()
        for function, own in spent.items():
            place = _place(function)
            callers = found[function][4] if function in found else {}
            weight = sum(entry[3] for entry in callers.values())
            if place is None and weight > 0:
                for caller, entry in callers.items():
                    handed_on[caller] += own * entry[3] / weight  # type: ignore[assignment]  # seconds are counted too
            else:
                shares[place or "the rest"] += own
        spent = handed_on
    shares["the rest"] += sum(spent.values())
    return shares


def _place(function: Function) -> str | None:
    path, _, name = function
    if "'send' of '_socket" in name:
        return "`send`, the system call"
    parts = Path(path).parts
    return next((package for package in PACKAGES if package in parts), None)


def _waits(function: Function) -> bool:
    return "select.epoll" in function[2] or "select.poll" in function[2]


def _step(file: str, name: str) -> bool:
    return OURS in Path(file).parts and not name.startswith("<")


def _module(file: str) -> str:
    parts = Path(file).parts
    return "/".join(parts[parts.index(OURS) + 1 :])
