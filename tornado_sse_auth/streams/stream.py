"""`EventStream`: the owner of one SSE response."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Protocol, Self

from tornado.web import RequestHandler

from ..errors import ConfigurationError, StreamEnded
from ..identity import Session, SessionState, UserContext
from ..sessions.requirements import NO_REQUIREMENTS, Requirements
from .event import HEARTBEAT, chunk, encode, encode_comment, encode_retry
from .reasons import CloseReason
from .response import StreamResponse
from .session_streams import SessionStreams

__all__ = ["EventStream"]

YIELD_AFTER = 65_536  # bytes sent without a wait before the loop gets its turn
NEWS_WITHIN = 1.0  # seconds in which a process hears of another's write


class Registry(Protocol):
    """What a stream needs of `StreamRegistry`, which owns it. `now` is monotonic, of the last tick."""

    max_buffer: int
    grace: float
    now: float

    def add(self, stream: EventStream, session: Session) -> SessionStreams[EventStream]:
        """Register a stream before its first byte. Raises `AuthError`."""
        ...

    def remove(self, stream: EventStream, group: SessionStreams[EventStream]) -> None:
        """It has ended."""

    def release(self, stream: EventStream) -> None:
        """Its response is out."""

    def retry(self) -> float:
        """Seconds after which a client should return."""
        ...


class Hub(Protocol):
    """What a stream needs of `ChannelHub`."""

    async def follow(self, stream: EventStream, channel: str) -> None:
        """Send it the events of a channel. Raises `StreamEnded`."""


class EventStream:
    """One open SSE response. A handler gets it from `event_stream()` and uses it as `async with`:

    entering registers it and sends the headers and an `open` event; the body is cancelled, as `asyncio.timeout` does,
    when the stream ends, and that cancellation stops at the exit of the `async with`. `last_event_id` is the
    client's, as it came.

    A protocol that has no room for our events overrides `greeting` and `notify`.
    """

    __slots__ = (
        "__weakref__",
        "_cancelled",
        "_cancelling",
        "_channel",
        "_filled",
        "_group",
        "_handler",
        "_hub",
        "_over",
        "_reason",
        "_registry",
        "_response",
        "_session",
        "_task",
        "_unyielded",
        "credential",
        "credential_expires_at",
        "grant",
        "known_at",
        "last_event_id",
        "opened_at",
        "parent",
        "position",
        "requirements",
        "scopes",
        "sent_at",
        "slot",
    )

    def __init__(
        self,
        handler: RequestHandler,
        *,
        session: Session,
        credential: bytes | None,
        known_at: int = 0,
        requirements: Requirements = NO_REQUIREMENTS,
        registry: Registry,
        hub: Hub,
    ) -> None:
        """`credential`: digest of what the request presented; the stream ends when the session no longer has it, or no
        longer has the grant whose token it is or the cookie it was made with. `known_at`: when the session was known to
        be so, as the session manager counts."""
        known = session.credential(credential) if credential is not None else None
        self.credential = credential
        self.credential_expires_at = known.expires_at if known is not None else session.expires_at
        self.parent = known.parent if known is not None else None
        self.grant = known.grant if known is not None else None
        self.scopes = known.scopes if known is not None else None
        self.known_at = known_at
        self.requirements = requirements
        self.last_event_id: str | None = handler.request.headers.get("Last-Event-ID")
        self.position = 0
        self.opened_at = self.sent_at = 0.0
        self.slot = 0
        self._handler: RequestHandler | None = handler
        self._session = session
        self._registry = registry
        self._hub = hub
        self._group: SessionStreams[EventStream] | None = None
        self._response: StreamResponse | None = None
        self._reason: str | None = None
        self._channel: str | None = None
        self._over: asyncio.Future[None] | None = None
        self._task: asyncio.Task[Any] | None = None
        self._cancelled = False
        self._cancelling = 0
        self._unyielded = 0
        self._filled = False

    # -- for handlers ----------------------------------------------------------------------------------------------

    @property
    def user(self) -> UserContext:
        """The user context as it is now: scopes may have narrowed since the stream was opened."""
        if self._group is None:
            return self._session.user_context(self.scopes)
        return self._group.user_of(self)

    @property
    def ended(self) -> str | None:
        """The close reason, or None while the stream is open."""
        return self._reason

    @property
    def upstream_expires_at(self) -> float | None:
        """Epoch seconds at which the upstream access token of the session ends; None where it has none."""
        token_set = (self._group.session if self._group is not None else self._session).token_set
        return token_set.expires_at if token_set is not None else None

    async def send(self, data: Any, *, event: str = "message", id: str | None = None) -> None:  # noqa: A002
        """Send one event, waiting while the client has more than `max_stream_buffer` still to read.

        A string is sent as it is, anything else as JSON. Raises `StreamEnded`; `ValueError` for an event name or id
        with a line break, NUL or lone surrogate; `RequestTooLargeError` above 1 MiB; `ConfigurationError` for an `id`
        on a stream that follows a channel, whose ids these are.
        """
        if id is not None and self._channel is not None:
            raise ConfigurationError("the ids of a stream that follows a channel are the channel's; send without id")
        await self.put(chunk(encode(data, event=event, id=id)))

    def offer(self, data: Any, *, event: str = "message") -> None:
        """Send one event without waiting: for one loop over many streams. A stream whose client has more than
        `max_stream_buffer` still to read ends as `slow_consumer`, but misses the event where a replay or `send` has
        filled the buffer; to one that has ended nothing is sent.

        Raises `ValueError`, `RequestTooLargeError` as `send` does.
        """
        ready = chunk(encode(data, event=event))
        if self._reason is not None:
            return
        if self._opened.queued <= self._registry.max_buffer:
            self._filled = False
            self.write(ready)
        elif not self._filled:
            self.end(CloseReason.SLOW_CONSUMER)

    async def comment(self, text: str) -> None:
        """Send a comment, which clients ignore. Raises `StreamEnded`, `ValueError` for a lone surrogate."""
        await self.put(chunk(encode_comment(text)))

    async def retry(self, seconds: float) -> None:
        """Tell the client how long to wait before it comes back. Raises `StreamEnded`, `ValueError`."""
        await self.put(chunk(encode_retry(seconds)))

    async def follow(self, channel: str) -> None:
        """Send the events of `channel`: after a reconnect those since Last-Event-ID, then each as it is published.

        Runs until the stream ends, so it does not return. At most one channel a stream, or `ConfigurationError`.
        """
        if self._channel is not None:
            raise ConfigurationError(f"the stream follows {self._channel!r} already: at most one channel a stream")
        if self._reason is not None:
            raise StreamEnded(self._reason)
        self._channel = channel
        await self._hub.follow(self, channel)

    async def over(self) -> None:
        """Wait for the end of the stream: for a body that leaves the sending to others. Raises `StreamEnded`."""
        if self._reason is None:
            if self._over is None:
                self._over = asyncio.get_running_loop().create_future()
            await self._over
        raise StreamEnded(self._reason or CloseReason.ERROR)

    async def restored(self) -> None:
        """Wait while the session needs its user to sign in again. Raises `StreamEnded`; the grace bounds the wait."""
        group = self._group
        if group is None:
            raise ConfigurationError("the stream is not open")
        if self._reason is None and group.session.state is SessionState.ACTIVE:
            # Who asks has seen the store say otherwise: the news is on its way here.
            await group.news(NEWS_WITHIN)
        while self._reason is None and group.session.state is not SessionState.ACTIVE:
            await group.news(self._registry.grace + NEWS_WITHIN)
        if self._reason is not None:
            raise StreamEnded(self._reason)

    # -- what a protocol overrides ---------------------------------------------------------------------------------

    def greeting(self, retry: float) -> bytes:
        """The first bytes after the headers. `retry`: seconds, this stream's own, so that not all return at once."""
        session = self._session
        opened = {"user_id": session.user_id, "session_id": session.id, "expires_at": int(session.expires_at)}
        return encode_retry(retry) + encode(opened, event="open")

    def notify(self, event: str, data: Mapping[str, Any]) -> None:
        """Tell the client one of our events (`auth_required`, `auth_restored`, `gap`, `end`). Does not wait."""
        self.write(chunk(encode(dict(data), event=event)))

    # -- the life of it --------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine runs in a task
        self.open(task)
        return self

    def open(self, task: asyncio.Task[Any] | None = None) -> None:
        """Register the stream and send its headers, for a protocol that cannot use `async with` because it learns only
        on the way that its answer is a stream; `close()` follows. `task` is cancelled when the stream ends.

        Raises what the registry's `add` raises; the handler's answer is then still to be given."""
        if self._response is not None or self._handler is None:
            raise ConfigurationError("a stream is opened once")
        self._task = task
        self._cancelling = task.cancelling() if task is not None else 0
        self._response = StreamResponse(self._handler)
        # No await from here on: who was admitted is open before anybody else can be.
        self._group = self._registry.add(self, self._session)
        self._session = self._group.session
        try:
            self._response.begin(self.greeting(self._registry.retry()))
        except BaseException:
            # No header has left, so the error becomes an ordinary answer.
            self._reason = CloseReason.ERROR
            self._registry.remove(self, self._group)
            self._registry.release(self)
            raise
        if self._response.closed:
            self.end(CloseReason.CLIENT)

    def close(self, reason: str = CloseReason.COMPLETED) -> None:
        """Finish the response; a stream that is still open ends with `reason`."""
        self._task = None
        if self._reason is None:
            self.end(CloseReason.CLIENT if self._opened.closed else reason)
        self._opened.finish(self._sent)
        self._handler = None

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        task = self._task
        self.close(CloseReason.COMPLETED if exc is None else CloseReason.ERROR)
        # A group: the body sent from several tasks, and each of them was told.
        expected = isinstance(exc, StreamEnded) or (
            isinstance(exc, BaseExceptionGroup) and exc.split(StreamEnded)[1] is None
        )
        if self._cancelled and task is not None:
            if not isinstance(exc, asyncio.CancelledError):
                # The stream ended in the body's last step: the cancellation is still on its way to this task.
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.sleep(0)
            if task.uncancel() > self._cancelling:
                # Somebody else wants the task to end, too; that is not for us to stop.
                if exc is None or expected:
                    raise asyncio.CancelledError
                return False
            expected = expected or isinstance(exc, asyncio.CancelledError)
        return expected

    def end(self, reason: str, *, retry: float | None = None) -> None:
        """End the stream: tell the client, cancel the body, free everything within a second. The first call counts.

        `retry`: seconds after which the client should come back.
        """
        if self._reason is not None or self._group is None:
            return
        self._reason = reason
        self._registry.remove(self, self._group)
        if reason not in (CloseReason.CLIENT, CloseReason.COMPLETED):
            if retry is not None:
                self.write(chunk(encode_retry(retry)))
            self.notify("end", {"reason": reason})
        if self._over is not None and not self._over.done():
            self._over.set_result(None)
        if self._task is not None and not self._cancelled:
            self._cancelled = True
            self._task.cancel()

    def abort(self) -> None:
        """Reset the connection of a stream that has ended and whose client does not read."""
        self._opened.abort()

    def _sent(self) -> None:
        if self._reason != CloseReason.COMPLETED or not self._opened.reusable:
            # Who was told to go may not read what is in the kernel's buffers either; only a close frees the socket.
            self._opened.close()
        self._registry.release(self)

    # -- for registry and hub --------------------------------------------------------------------------------------

    @property
    def _opened(self) -> StreamResponse:
        if self._response is None:
            raise ConfigurationError("the stream is not open: use `async with`")
        return self._response

    async def put(self, ready: bytes) -> None:
        """Send `ready`, an HTTP chunk, when there is room. Raises `StreamEnded`."""
        await self.room()
        if self._reason is not None:
            raise StreamEnded(self._reason)
        self.write(ready)
        self._filled = self._opened.queued > self._registry.max_buffer
        self._unyielded += len(ready)
        if self._unyielded > YIELD_AFTER:
            # A client as fast as the body would otherwise keep the loop for itself.
            self._unyielded = 0
            await asyncio.sleep(0)

    async def room(self) -> None:
        """Wait while more than `max_stream_buffer` is queued. Returns also when the stream has ended."""
        response = self._opened
        while self._reason is None and response.queued > self._registry.max_buffer:
            self._unyielded = 0
            await response.drained()

    def write(self, ready: bytes) -> None:
        """Send `ready`, an HTTP chunk, without waiting for room."""
        self.sent_at = self._registry.now
        self._opened.write(ready)

    def deliver(self, n: int, ready: bytes) -> None:
        """Send event `n` of the followed channel, once; a stream whose client reads too slowly ends instead."""
        if n <= self.position or self._reason is not None:
            return
        self.position = n
        response = self._opened
        if response.queued > self._registry.max_buffer:
            self.end(CloseReason.SLOW_CONSUMER)
        else:
            self.sent_at = self._registry.now
            response.write(ready)

    def beat(self) -> None:
        """Send a heartbeat, unless something is still on its way: a client that does not read costs no memory."""
        if self._opened.queued == 0:
            self.write(HEARTBEAT)
