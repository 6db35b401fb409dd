"""A client for Server-Sent Events, written from the standard (WHATWG HTML, 9.2.6) and not from our encoder."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

T = TypeVar("T")

_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class ServerSentEvent:
    """One dispatched event."""

    event: str
    data: str
    id: str
    """The last event id at the time of the event; empty where none was sent yet."""

    def json(self) -> Any:
        """The data as JSON."""
        return json.loads(self.data)


class EventStreamParser:
    """Bytes in, events out. Also keeps the comments, the last `retry` (milliseconds) and the last event id."""

    def __init__(self) -> None:
        self.comments: list[str] = []
        self.retry: int | None = None
        self.last_event_id = ""
        self._line = bytearray()
        self._after_cr = False
        self._first = True
        self._data: list[str] = []
        self._event = ""

    def feed(self, chunk: bytes) -> list[ServerSentEvent]:
        """The events that `chunk` completes."""
        events = []
        for byte in chunk:
            if self._after_cr and byte == 0x0A:
                self._after_cr = False
                continue
            self._after_cr = byte == 0x0D
            if byte not in {0x0A, 0x0D}:
                self._line.append(byte)
                continue
            if event := self._end_of_line():
                events.append(event)
        return events

    def _end_of_line(self) -> ServerSentEvent | None:
        raw = bytes(self._line)
        self._line.clear()
        if self._first:
            self._first = False
            raw = raw.removeprefix(_BOM)
        if not raw:
            return self._dispatch()
        line = raw.decode("utf-8", "replace")
        if line.startswith(":"):
            self.comments.append(line[1:])
            return None
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            self._data.append(value)
        elif field == "event":
            self._event = value
        elif field == "id" and "\0" not in value:
            self.last_event_id = value
        elif field == "retry" and value.isascii() and value.isdigit():
            self.retry = int(value)
        return None

    def _dispatch(self) -> ServerSentEvent | None:
        data, event = self._data, self._event or "message"
        self._data, self._event = [], ""
        return ServerSentEvent(event, "\n".join(data), self.last_event_id) if data else None


class SSEClient:
    """One open stream: `async with SSEClient(url, bearer=...) as client: event = await client.next("tick")`."""

    def __init__(
        self,
        url: str,
        *,
        bearer: str | None = None,
        cookies: httpx.Cookies | None = None,
        headers: Mapping[str, str] | None = None,
        last_event_id: str | None = None,
        verify: ssl.SSLContext | bool = True,
    ) -> None:
        """`verify`: whose certificates to believe."""
        self.url = url
        self.events: list[ServerSentEvent] = []
        """All that arrived, in order."""
        self._parser = EventStreamParser()
        self._headers = {"Accept": "text/event-stream", **(headers or {})}
        if bearer is not None:
            self._headers["Authorization"] = f"Bearer {bearer}"
        if last_event_id is not None:
            self._headers["Last-Event-ID"] = last_event_id
        timeout = httpx.Timeout(10, read=None)
        self._client = httpx.AsyncClient(cookies=cookies, timeout=timeout, trust_env=False, verify=verify)
        self._response: httpx.Response | None = None
        self._reader: asyncio.Task[None] | None = None
        self._arrived = asyncio.Condition()
        self._given = 0
        self._body = bytearray()
        self._ended: BaseException | bool = False

    async def __aenter__(self) -> Self:
        """Waits for the head of the answer, whatever its status."""
        try:
            request = self._client.build_request("GET", self.url, headers=self._headers)
            self._response = await asyncio.wait_for(self._client.send(request, stream=True), 10)
        except BaseException:
            await self._client.aclose()
            raise
        self._reader = asyncio.create_task(self._read(self._response), name=f"SSE client {self.url}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Go away, as a browser does that is closed."""
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.wait([self._reader])
        await self.response.aclose()
        await self._client.aclose()

    @property
    def response(self) -> httpx.Response:
        """The head of the answer; the body of an error is had by `body()`."""
        if self._response is None:
            raise AssertionError("the client is not connected: use `async with`")
        return self._response

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.response.status_code

    @property
    def comments(self) -> list[str]:
        """Comments so far, without their colon."""
        return self._parser.comments

    @property
    def retry(self) -> int | None:
        """The last reconnection time sent, milliseconds."""
        return self._parser.retry

    @property
    def last_event_id(self) -> str:
        """What a reconnect would send as Last-Event-ID."""
        return self._parser.last_event_id

    @property
    def ended(self) -> bool:
        """Whether the connection has ended, in whatever way."""
        return self._ended is not False

    async def next(self, event: str | None = None, *, timeout: float = 10.0) -> ServerSentEvent:
        """The next event, or the next one of that name (others on the way stay in `events`).

        Raises AssertionError when the stream ends first or `timeout` seconds pass.
        """

        def find() -> ServerSentEvent | None:
            while self._given < len(self.events):
                found = self.events[self._given]
                self._given += 1
                if event is None or found.event == event:
                    return found
            return None

        return await self._wait(find, f"event {event or 'of any kind'}", timeout)

    async def next_comment(self, *, timeout: float = 20.0) -> str:
        """The next comment from now on (heartbeats are comments)."""
        before = len(self.comments)
        return await self._wait(lambda: next(iter(self.comments[before:]), None), "comment", timeout)

    async def body(self, *, timeout: float = 10.0) -> bytes:
        """The whole body of an answer with another status than 200."""
        await self.wait_for_end(timeout=timeout)
        return bytes(self._body)

    async def wait_for_end(self, *, timeout: float = 10.0) -> None:
        """Wait until the server has ended the stream, orderly or not."""
        try:
            async with asyncio.timeout(timeout), self._arrived:
                await self._arrived.wait_for(lambda: self.ended)
        except TimeoutError:
            raise AssertionError(f"{self.url} is still open after {timeout} s; {self._so_far()}") from None

    async def _wait(self, find: Callable[[], T | None], what: str, timeout: float) -> T:
        found: T | None = None

        def ready() -> bool:
            nonlocal found
            found = find()
            return found is not None or self.ended

        try:
            async with asyncio.timeout(timeout), self._arrived:
                await self._arrived.wait_for(ready)
        except TimeoutError:
            raise AssertionError(f"no {what} within {timeout} s; {self._so_far()}") from None
        if found is None:
            raise AssertionError(f"the stream ended without {what}; {self._so_far()}")
        return found

    async def _read(self, response: httpx.Response) -> None:
        try:
            async for chunk in response.aiter_raw():
                if response.status_code != 200:
                    self._body += chunk
                    continue
                events = self._parser.feed(chunk)
                async with self._arrived:
                    self.events.extend(events)
                    self._arrived.notify_all()
            end: BaseException | bool = True
        except httpx.HTTPError as error:
            end = error
        async with self._arrived:
            self._ended = end
            self._arrived.notify_all()

    def _so_far(self) -> str:
        return f"status {self.status}, end {self._ended!r}, events {self.events[-10:]}"
