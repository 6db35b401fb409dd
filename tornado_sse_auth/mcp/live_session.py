"""An MCP session while this process has something to do for it: its calls, its questions, its standing stream."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mcp.server.connection import Connection
from mcp.server.runner import ServerRunner, aclose_shielded
from mcp.shared.dispatcher import CallOptions, ProgressFnT
from mcp.shared.exceptions import MCPError
from mcp_types.jsonrpc import REQUEST_TIMEOUT, JSONRPCError, JSONRPCNotification, JSONRPCResponse, RequestId

from ..events import EventLog, LogEvent
from ..streams.reasons import CloseReason
from .message_stream import MessageStream
from .messages import UnreadableMessage, encode, notification, read_message
from .session_records import MCPSession

if TYPE_CHECKING:
    from .call import Call

__all__ = ["STANDALONE", "LiveSession"]

STANDALONE = "0"  # the stream that belongs to no request
PATIENCE = 3600.0  # seconds in which a client must answer a question, where the asker sets no time
_PROCESS = os.urandom(6).hex()
_numbers = itertools.count(1)

Send = Callable[[dict[str, Any]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class _Question:
    answer: asyncio.Future[JSONRPCResponse | JSONRPCError]
    on_progress: ProgressFnT | None


class LiveSession:
    """Belongs to `LiveSessions`. `news` for it comes from every process by the channel `mcp-in:<key>` of the event log:
    answers to questions and cancellations that were posted elsewhere, and that the session changed or ended."""

    def __init__(
        self,
        session: MCPSession,
        session_id: str | None,
        runner: Callable[[Connection], ServerRunner[Any]],
        events: EventLog,
    ) -> None:
        self.session = session
        self.checked_at = 0.0
        self.used_at = 0.0
        self.ended = False
        self.calls: dict[RequestId, Call] = {}
        self.standing: MessageStream | None = None
        self.standing_token = ""
        self.on_changed: Callable[[LiveSession], None] | None = None
        self._questions: dict[RequestId, _Question] = {}
        self._events = events
        self._tasks: set[asyncio.Task[Any]] = set()
        self._unsubscribe = events.subscribe(self._inbox, self._on_news)
        connection = Connection.for_loop(
            _Standalone(self), session_id=session_id, protocol_version_hint=session.protocol_version
        )
        connection.client_params = session.client
        connection.initialized.set()
        self.connection = connection
        self.runner = runner(connection)

    @property
    def busy(self) -> bool:
        """Whether somebody waits for this process."""
        return bool(self.calls or self._questions or self.standing is not None)

    @property
    def _inbox(self) -> str:
        return f"mcp-in:{self.session.key}"

    def channel(self, stream: str) -> str:
        """The event log's channel of one of the session's streams."""
        return f"mcp:{self.session.key}:{stream}"

    # -- to the client ---------------------------------------------------------------------------------------------

    async def say(self, message: Mapping[str, Any]) -> None:
        """Send a message that belongs to no request: on the standing stream, wherever that is, now or when it is."""
        await self._events.publish(self.channel(STANDALONE), encode(message).decode())

    async def ask(
        self, method: str, params: Mapping[str, Any] | None, opts: CallOptions | None, send: Send
    ) -> dict[str, Any]:
        """Send a request by `send` and wait for its answer, to whichever process that is posted. Raises `MCPError`."""
        options = opts or {}
        request_id = f"{_PROCESS}-{next(_numbers)}"
        on_progress = options.get("on_progress")
        asked = dict(params or {})
        if on_progress is not None:
            asked["_meta"] = {**(asked.get("_meta") or {}), "progressToken": request_id}
        message: dict[str, Any] = {"jsonrpc": "2.0", "id": request_id, "method": method}
        if asked:
            message["params"] = asked
        question = _Question(asyncio.get_running_loop().create_future(), on_progress)
        self._questions[request_id] = question
        try:
            async with asyncio.timeout(options.get("timeout", PATIENCE)):
                await send(message)
                answer = await question.answer
        except TimeoutError:
            await send(notification("notifications/cancelled", {"requestId": request_id, "reason": "timed out"}))
            raise MCPError(REQUEST_TIMEOUT, f"The client did not answer {method} in time.") from None
        finally:
            del self._questions[request_id]
        if isinstance(answer, JSONRPCError):
            raise MCPError.from_jsonrpc_error(answer)
        return answer.result

    # -- from the client -------------------------------------------------------------------------------------------

    async def receive(self, message: JSONRPCResponse | JSONRPCError | JSONRPCNotification) -> None:
        """An answer, a cancellation or progress: for this process, or for the one that waits for it."""
        if not self._take(message):
            document = message.model_dump(mode="json", by_alias=True, exclude_none=True)
            await self._events.publish(self._inbox, document)

    def _take(self, message: JSONRPCResponse | JSONRPCError | JSONRPCNotification) -> bool:
        if isinstance(message, JSONRPCNotification):
            return self._take_notification(message)
        question = self._questions.get(message.id) if message.id is not None else None
        if question is None:
            return False
        if not question.answer.done():
            question.answer.set_result(message)
        return True

    def _take_notification(self, message: JSONRPCNotification) -> bool:
        params = message.params or {}
        if message.method == "notifications/cancelled":
            call = self.calls.get(params.get("requestId", ""))
            if call is not None:
                call.cancel()
            return call is not None
        question = self._questions.get(params.get("progressToken", ""))
        progress = params.get("progress")
        if question is None or question.on_progress is None or not isinstance(progress, int | float):
            return question is not None
        total, text = params.get("total"), params.get("message")
        self._spawn(
            question.on_progress(
                float(progress),
                float(total) if isinstance(total, int | float) else None,
                text if isinstance(text, str) else None,
            )
        )
        return True

    # -- from other processes --------------------------------------------------------------------------------------

    async def announce(self, news: str, value: str = "") -> None:
        """Tell every process that has the session, this one too."""
        await self._events.publish(self._inbox, {"value": value}, event=news)

    def _on_news(self, event: LogEvent | None) -> None:
        if event is None or event.event == "changed":
            if self.on_changed is not None:
                self.on_changed(self)
        elif event.event == "message":
            with contextlib.suppress(UnreadableMessage):
                message, _ = read_message(event.data.encode())
                if isinstance(message, JSONRPCResponse | JSONRPCError | JSONRPCNotification):
                    self._take(message)
        elif event.event == "ended":
            self.end()
        else:
            self._give_way(event.event, json.loads(event.data)["value"])

    def _give_way(self, news: str, value: str) -> None:
        """The client reads one of the session's streams elsewhere: no message may reach it twice."""
        if news == "standing":
            if self.standing is not None and value != self.standing_token:
                self.standing.end(CloseReason.COMPLETED)
        elif news == "resumed":
            for call in self.calls.values():
                if call.stream_id == value:
                    call.give_way()

    # -- the end ---------------------------------------------------------------------------------------------------

    def end(self) -> None:
        """The session is over: nothing of it goes on, and its streams close."""
        self.ended = True
        for call in tuple(self.calls.values()):
            call.stop()
        if self.standing is not None:
            self.standing.end(CloseReason.COMPLETED)
        for question in self._questions.values():
            question.answer.cancel()

    async def close(self) -> None:
        """Let go of it: another process, or this one later, may go on."""
        self._unsubscribe()
        for call in tuple(self.calls.values()):
            call.shut_down()
        tasks = [*self._tasks, *(call.task for call in self.calls.values() if call.task is not None)]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=2.0)
            for task in late:
                task.cancel()
        await aclose_shielded(self.connection)

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class _Standalone:
    """The kernel's channel for what belongs to no request."""

    def __init__(self, live: LiveSession) -> None:
        self._live = live

    async def send_raw_request(
        self, method: str, params: Mapping[str, Any] | None, opts: CallOptions | None = None
    ) -> dict[str, Any]:
        """Raises `MCPError`."""
        return await self._live.ask(method, params, opts, self._live.say)

    async def notify(self, method: str, params: Mapping[str, Any] | None, opts: CallOptions | None = None) -> None:
        """Nobody waits for it to arrive."""
        await self._live.say(notification(method, params))
