"""What every client does, and what came of it."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

# Three at a time: one that needs nothing, one that needs the upstream token, one that needs a scope.
CALLS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("whoami", {}),
    ("upstream_profile", {}),
    ("search_content", {"query": "stream"}),
)
PAUSE = 0.3  # seconds between the calls of one worker

Caller = Callable[[str, dict[str, Any]], Awaitable[Any]]  # gives a result with `is_error`


@dataclass
class Outcome:
    """`calls` made, what failed, how often its user was asked to sign in, and the revision that was spoken."""

    calls: int = 0
    failures: list[str] = field(default_factory=list)
    sign_ins: int = 0
    version: str | None = None


@dataclass(frozen=True)
class Order:
    """Who is to do what: `account` signs in for a client that calls tools at `url` for `seconds`."""

    server: str
    provider: str
    account: str
    seconds: float
    path: str = "/mcp"

    @property
    def url(self) -> str:
        """The endpoint."""
        return f"{self.server}{self.path}"


async def work(order: Order, outcome: Outcome, call: Caller) -> None:
    """Call tools in parallel until the time is over, each worker at its own pace."""
    end = time.monotonic() + order.seconds

    async def worker(name: str, arguments: dict[str, Any]) -> None:
        while time.monotonic() < end:
            await _one(outcome, call, name, arguments)
            await asyncio.sleep(PAUSE)

    await asyncio.gather(*(worker(name, arguments) for name, arguments in CALLS))


async def work_in_rounds(order: Order, outcome: Outcome, call: Caller, seconds: float) -> None:
    """Call all of them at once, and again `seconds` after that, until the time is over."""
    start = time.monotonic()
    for at in itertools.count(0.0, seconds):
        await asyncio.sleep(start + at - time.monotonic())
        if at >= order.seconds:
            return
        await asyncio.gather(*(_one(outcome, call, name, arguments) for name, arguments in CALLS))


async def _one(outcome: Outcome, call: Caller, name: str, arguments: dict[str, Any]) -> None:
    outcome.calls += 1
    try:
        result = await call(name, arguments)
        if result.is_error:
            outcome.failures.append(f"{name}: {result.content}")
    except Exception as error:
        outcome.failures.append(f"{name}: {error!r}")
