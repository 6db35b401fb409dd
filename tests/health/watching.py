"""Somebody who asks the three paths five times a second, and does not wait for one answer before the next question."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import httpx

PATHS = ("/livez", "/readyz", "/health")
EACH = 0.2
PATIENCE = 6.0


@dataclass(frozen=True)
class Seen:
    """One answer; `status` is None where none came in six seconds. `asked` and `took` in seconds, monotonic."""

    path: str
    asked: float
    took: float
    status: int | None
    body: dict[str, Any]

    @property
    def said(self) -> str:
        """In a word or two."""
        return "no answer" if self.status is None else f"{self.status} {self.body.get('status', '?')}"

    def check(self, name: str) -> dict[str, Any]:
        """What `/health` said of a check."""
        entry: dict[str, Any] = self.body.get("checks", {}).get(f"{name}:responseTime", [{}])[0]
        return entry


class Watch:
    """`async with Watch(url) as watch`: everything that was seen is in `seen`."""

    def __init__(self, url: str) -> None:
        self.seen: list[Seen] = []
        self._client = httpx.AsyncClient(
            base_url=url, trust_env=False, timeout=PATIENCE, limits=httpx.Limits(max_connections=200)
        )
        self._asking: set[asyncio.Task[None]] = set()
        self._loop: asyncio.Task[None] | None = None
        self._news = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._loop = asyncio.create_task(self._run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        tasks = [task for task in (self._loop, *self._asking) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._client.aclose()

    async def until(self, condition: Callable[[Seen], bool], *, timeout: float) -> Seen:
        """The first answer to a question asked from now on for which `condition` holds."""
        asked, position = time.monotonic(), len(self.seen)
        try:
            async with asyncio.timeout(timeout):
                while True:
                    for seen in self.seen[position:]:
                        position += 1
                        if seen.asked >= asked and condition(seen):
                            return seen
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            last = {seen.path: (seen.said, seen.body.get("output")) for seen in self.seen}
            raise AssertionError(f"not seen within {timeout} s; last: {last}") from None

    def between(self, path: str, begin: float, end: float) -> list[Seen]:
        """The answers of a path to what was asked in that time."""
        return [seen for seen in self.seen if seen.path == path and begin <= seen.asked < end]

    async def _run(self) -> None:
        while True:
            for path in PATHS:
                task = asyncio.create_task(self._ask(path))
                self._asking.add(task)
                task.add_done_callback(self._asking.discard)
            await asyncio.sleep(EACH)

    async def _ask(self, path: str) -> None:
        asked = time.monotonic()
        status, body = None, {}
        try:
            answer = await self._client.get(path)
            status, body = answer.status_code, answer.json()
        except httpx.TransportError:
            pass
        self.seen.append(Seen(path, asked, time.monotonic() - asked, status, body))
        self._news.set()
