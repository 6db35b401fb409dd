"""An MCP session of Streamable HTTP while this process has something to do for it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Protocol

from mcp_types.jsonrpc import JSONRPCError, JSONRPCNotification, JSONRPCResponse

from ..errors import NotFoundError
from ..events import EventLog, LogEvent
from ..streams.reasons import CloseReason
from .message_stream import MessageStream
from .messages import UnreadableMessage, as_message, encode
from .peer import MakeRunner, Peer
from .session_records import MCPSession, SessionRecords

__all__ = ["STANDALONE", "LiveSession", "inbox"]

STANDALONE = "0"  # the stream that belongs to no request


def inbox(key: str) -> str:
    """The event log's channel for every process that has the session with this key."""
    return f"mcp-in:{key}"


class OpenStream(Protocol):
    """The answer to a request, as long as its connection is open."""

    def give_way(self) -> None:
        """Another connection reads it from now on."""


class LiveSession(Peer):
    """Belongs to `LiveSessions`. News for it come from every process by the channel `mcp-in:<key>` of the event log:
    answers to questions and cancellations that were posted elsewhere, and that the session changed or ended."""

    def __init__(
        self,
        session: MCPSession,
        session_id: str,
        make_runner: MakeRunner,
        records: SessionRecords,
        events: EventLog,
    ) -> None:
        super().__init__(make_runner, session_id=session_id, protocol_version=session.protocol_version)
        self.connection.client_params = session.client
        self.connection.initialized.set()
        self.session = session
        self.checked_at = 0.0
        self.used_at = 0.0
        self.ended = False
        self.on_changed: Callable[[LiveSession], None] | None = None
        self.streams: dict[str, OpenStream] = {}
        self._readers: set[MessageStream] = set()
        self._records = records
        self._events = events
        self._unsubscribe = events.subscribe(inbox(session.key), self._on_news)

    @property
    def owner(self) -> tuple[str, str]:  # type: ignore[override]
        """Who alone may use it."""
        return self.session.owner

    @property
    def protocol_version(self) -> str:  # type: ignore[override]
        """The revision that was agreed on."""
        return self.session.protocol_version

    @property
    def log_level(self) -> str | None:  # type: ignore[override]
        """The least severe messages it wants."""
        return self.session.log_level

    @property
    def uris(self) -> frozenset[str]:  # type: ignore[override]
        """The resources it watches."""
        return self.session.uris

    @property
    def busy(self) -> bool:
        """Whether somebody waits for this process."""
        return bool(self._readers) or super().busy

    @contextlib.contextmanager
    def read_by(self, stream: MessageStream) -> Iterator[None]:
        """In the block the stream ends with the session, which may have ended just before it."""
        self._readers.add(stream)
        if self.ended:
            stream.end(CloseReason.COMPLETED)
        try:
            yield
        finally:
            self._readers.discard(stream)

    def channel(self, stream: str) -> str:
        """The event log's channel of one of the session's streams."""
        return f"mcp:{self.session.key}:{stream}"

    async def say(self, message: Mapping[str, Any]) -> None:
        """On the standing stream, in whichever process that is, now or when it is opened again."""
        await self._events.publish(self.channel(STANDALONE), encode(message).decode())

    async def set_level(self, level: str) -> None:
        """For all processes. Raises `NotFoundError`."""
        await self._change(lambda session: replace(session, log_level=level))

    async def watch(self, uri: str, *, on: bool) -> None:
        """For all processes. Raises `NotFoundError`."""
        uris = {uri}
        await self._change(lambda session: replace(session, uris=session.uris | uris if on else session.uris - uris))

    async def _change(self, change: Callable[[MCPSession], MCPSession]) -> None:
        changed = await self._records.change(self.session, change)
        if changed is None:
            raise NotFoundError("There is no such MCP session.")
        self.session = changed
        await self.announce("changed")

    async def receive(self, message: JSONRPCResponse | JSONRPCError | JSONRPCNotification) -> None:
        """What somebody waits for, here or in another process."""
        if not self.take(message):
            document = message.model_dump(mode="json", by_alias=True, exclude_none=True)
            await self._events.publish(inbox(self.session.key), document)

    async def announce(self, news: str, value: str = "") -> None:
        """Tell every process that has the session, this one too."""
        await self._events.publish(inbox(self.session.key), {"value": value}, event=news)

    def _on_news(self, event: LogEvent | None) -> None:
        if event is None or event.event == "changed":
            if self.on_changed is not None:
                self.on_changed(self)
        elif event.event == "message":
            with contextlib.suppress(UnreadableMessage):
                message = as_message(json.loads(event.data))
                if isinstance(message, JSONRPCResponse | JSONRPCError | JSONRPCNotification):
                    self.take(message)
        elif event.event == "ended":
            self.end()
        elif event.event == "resumed":
            # The client reads this stream over another connection: no message may reach it twice.
            call = self.streams.get(json.loads(event.data)["value"])
            if call is not None:
                call.give_way()

    def end(self) -> None:
        """The session is over."""
        self.ended = True
        for stream in tuple(self._readers):
            stream.end(CloseReason.COMPLETED)
        super().end()

    async def close(self) -> None:
        """Let go of it: another process, or this one later, may go on."""
        self._unsubscribe()
        await super().close()
