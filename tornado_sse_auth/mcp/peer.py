"""One client of the older revisions, as the process sees it that serves its requests: calls, and questions to it."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from mcp.server.connection import Connection
from mcp.server.runner import ServerRunner, aclose_shielded
from mcp.shared.dispatcher import CallOptions, ProgressFnT
from mcp.shared.exceptions import MCPError
from mcp_types.jsonrpc import REQUEST_TIMEOUT, JSONRPCError, JSONRPCNotification, JSONRPCResponse, RequestId

from ..streams.reasons import CloseReason
from .message_stream import MessageStream
from .messages import notification

__all__ = ["MakeRunner", "Peer", "Underway"]

PATIENCE = 3600.0  # seconds in which a client must answer a question, where the asker sets no time
_PROCESS = os.urandom(6).hex()  # questions of several processes to one client must differ
_numbers = itertools.count(1)

MakeRunner = Callable[[Connection], ServerRunner[Any]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class Underway(Protocol):
    """A request of the client's that is being served."""

    task: asyncio.Task[None] | None

    def cancel(self) -> None:
        """The client wants it no more."""

    def shut_down(self) -> None:
        """This process can go on with it no more."""

    def stop(self) -> None:
        """Its session, or its user's right to it, is over: no word more."""


@dataclass(frozen=True, slots=True)
class _Question:
    answer: asyncio.Future[JSONRPCResponse | JSONRPCError]
    on_progress: ProgressFnT | None


class Peer:
    """Abstract: `say`, `set_level` and `watch` are the transport's. `owner` is who alone may use it: a user's and a
    client's id. `log_level` and `uris` are what it asked to be told, `standing` is its stream that belongs to no
    request."""

    owner: tuple[str, str]
    protocol_version: str
    log_level: str | None
    uris: frozenset[str]

    def __init__(self, make_runner: MakeRunner, *, session_id: str | None, protocol_version: str) -> None:
        self.calls: dict[RequestId, Underway] = {}
        self.standing: MessageStream | None = None
        self._questions: dict[RequestId, _Question] = {}
        self._tasks: set[asyncio.Future[Any]] = set()
        self.connection = Connection.for_loop(
            _Channel(self), session_id=session_id, protocol_version_hint=protocol_version
        )
        self.runner = make_runner(self.connection)

    @property
    def busy(self) -> bool:
        """Whether somebody waits for this process."""
        return bool(self.calls or self._questions or self.standing is not None)

    # -- to the client ---------------------------------------------------------------------------------------------

    async def say(self, message: Mapping[str, Any]) -> None:
        """Send a message that belongs to no request."""
        raise NotImplementedError

    async def set_level(self, level: str) -> None:
        """The client wants log messages of this level and above."""
        raise NotImplementedError

    async def watch(self, uri: str, *, on: bool) -> None:
        """The client wants to be told when the resource changes, or no longer."""
        raise NotImplementedError

    async def ask(
        self, method: str, params: Mapping[str, Any] | None, opts: CallOptions | None, send: Send
    ) -> dict[str, Any]:
        """Send a request by `send` and wait for its answer. Raises `MCPError`."""
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

    def take(self, message: JSONRPCResponse | JSONRPCError | JSONRPCNotification) -> bool:
        """An answer, a cancellation or progress. False where nobody in this process waits for it."""
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

    # -- the end ---------------------------------------------------------------------------------------------------

    def end(self) -> None:
        """The client's session is over: nothing of it goes on, and its streams close."""
        for call in tuple(self.calls.values()):
            call.stop()
        if self.standing is not None:
            self.standing.end(CloseReason.COMPLETED)
        for question in self._questions.values():
            question.answer.cancel()

    async def close(self) -> None:
        """Let go of it."""
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


class _Channel:
    """The kernel's way to what belongs to no request."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer

    async def send_raw_request(
        self, method: str, params: Mapping[str, Any] | None, opts: CallOptions | None = None
    ) -> dict[str, Any]:
        """Raises `MCPError`."""
        return await self._peer.ask(method, params, opts, self._peer.say)

    async def notify(self, method: str, params: Mapping[str, Any] | None, opts: CallOptions | None = None) -> None:
        """Nobody waits for it to arrive."""
        await self._peer.say(notification(method, params))
