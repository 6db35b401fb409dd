"""A client that keeps one stream open whatever happens, and writes down what it was told: the record of a checker.

It does what a page's client does: resumes with Last-Event-ID at whatever server it is given, waits as long as it is
told to, and signs in again when it must.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from types import TracebackType
from typing import Any, Self

from tests.parts.sse_client import EventStreamParser, ServerSentEvent

_CONNECT_TIMEOUT = 10.0
_LONGEST_WAIT = 2.0
_BUFFER = 2**20


@dataclass
class StreamRecord:
    """What one follower saw, over all its connections."""

    received: list[tuple[int, str]] = field(default_factory=list)
    """Number and data of each event of the log, in the order of arrival."""
    statuses: Counter[int] = field(default_factory=Counter)
    """Of every answer; what has no Retry-After though it is 503 counts as 5030."""
    ended: Counter[str] = field(default_factory=Counter)
    """Streams that the server ended, by reason; `cut` where it did not say one, `unreachable` where none began.
    Not those that the follower left."""
    gaps: list[Any] = field(default_factory=list)
    notices: Counter[str] = field(default_factory=Counter)
    """Events of the server's own: open, auth_required, auth_restored, gap, end."""


class Follower:
    """Follows `/events`. `choose` gives the port to try next; `sign_in` a new bearer, given the authorization URL (or
    None) and called once at a time."""

    def __init__(
        self,
        bearer: str,
        *,
        choose: Callable[[], int],
        sign_in: Callable[[str | None], Awaitable[str]] | None = None,
        random: Random,
    ) -> None:
        self.record = StreamRecord()
        self.port = 0
        """Where the stream is open; 0 while it is not."""
        self.last: dict[str, Any] = {}
        """The newest data of each of the server's own events."""
        self._bearer = bearer
        self._choose = choose
        self._sign_in = sign_in
        self._random = random
        self._parser = EventStreamParser()
        self._writer: asyncio.StreamWriter | None = None
        self._told = asyncio.Condition()
        self._asked: asyncio.Task[None] | None = None
        self._hung_up = False
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run(), name="follower")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        tasks = [task for task in (self._task, self._asked) if task is not None]
        for task in tasks:
            task.cancel()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        if kind is None:
            for failure in found:
                if isinstance(failure, Exception):
                    raise failure

    @property
    def last_event_id(self) -> str:
        """Where a reconnect would resume."""
        return self._parser.last_event_id

    def hang_up(self) -> None:
        """Go away and come back."""
        if self._writer is not None:
            self._hung_up = True
            self._writer.transport.abort()

    async def until(self, condition: Callable[[Self], bool], *, timeout: float) -> None:
        """Wait until what has arrived meets `condition`. Raises AssertionError after `timeout` seconds."""
        try:
            async with asyncio.timeout(timeout), self._told:
                await self._told.wait_for(lambda: condition(self) or self._is_over())
        except TimeoutError:
            raise AssertionError(f"not within {timeout} s: {self.record.notices}, {self.record.ended}") from None
        if self._is_over():
            raise AssertionError(f"the follower has ended: {self._task}")

    def _is_over(self) -> bool:
        return self._task is None or self._task.done()

    async def _run(self) -> None:
        while True:
            wait = self._random.uniform(0.05, 0.3)
            port = self._choose()
            try:
                wait = await self._once(port) or wait
            except (OSError, asyncio.IncompleteReadError, TimeoutError):
                if not self._hung_up:
                    self.record.ended["cut" if self.port else "unreachable"] += 1
            finally:
                self.port = 0
                if self._writer is not None:
                    self._writer.transport.abort()
                    self._writer = None
            if not self._hung_up:
                await asyncio.sleep(wait)
            self._hung_up = False

    async def _once(self, port: int) -> float | None:
        """One connection from beginning to end; the seconds to wait before the next, if the server said."""
        async with asyncio.timeout(_CONNECT_TIMEOUT):
            reader, self._writer = await asyncio.open_connection("127.0.0.1", port, limit=_BUFFER)
            self._writer.write(self._request(port))
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        status = int(head.split(" ", 2)[1])
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head.splitlines()[1:])}
        if status != 200:
            return await self._refused(status, headers, await reader.readexactly(int(headers["content-length"])))
        self.record.statuses[status] += 1
        self.port = port
        ended = "cut"
        async for event in self._events(reader):
            ended = await self._hear(event) or ended
        if not self._hung_up:
            self.record.ended[ended] += 1
        return None

    def _request(self, port: int) -> bytes:
        resume = f"Last-Event-ID: {self.last_event_id}\r\n" if self.last_event_id else ""
        head = f"GET /events HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAccept: text/event-stream\r\n"
        return f"{head}Authorization: Bearer {self._bearer}\r\n{resume}\r\n".encode()

    async def _refused(self, status: int, headers: dict[str, str], body: bytes) -> float | None:
        retry_after = headers.get("retry-after")
        self.record.statuses[5030 if status == 503 and retry_after is None else status] += 1
        if status == 401:
            await self._again(json.loads(body).get("authorization_url"))
        return min(_LONGEST_WAIT, float(retry_after)) if retry_after else None

    async def _events(self, reader: asyncio.StreamReader) -> AsyncIterator[ServerSentEvent]:
        while size := int(await reader.readline() or b"0", 16):
            for event in self._parser.feed((await reader.readexactly(size + 2))[:-2]):
                yield event

    async def _hear(self, event: ServerSentEvent) -> str | None:
        """Write it down; the reason where the server ends the stream."""
        ended = None
        if event.event == "message":
            self.record.received.append((int(event.id), event.data))
        elif event.event != "tick":
            self.record.notices[event.event] += 1
            if event.event == "gap":
                self.record.gaps.append(event.json())
            elif event.event == "end":
                ended = str(event.json()["reason"])
            elif event.event == "auth_required" and self._asked is None:
                # Beside the stream, which lives on meanwhile.
                self._asked = asyncio.create_task(self._again(event.json()["authorization_url"]))
        if event.event != "message":
            self.last[event.event] = event.json()
        async with self._told:
            self._told.notify_all()
        return ended

    async def _again(self, url: str | None) -> None:
        try:
            if self._sign_in is not None:
                with suppress(OSError):
                    self._bearer = await self._sign_in(url)
        finally:
            self._asked = None
