"""The 2025 revisions over Streamable HTTP: a session, requests with streams that can be read on, a standing stream."""

from __future__ import annotations

from mcp_types.jsonrpc import JSONRPCError, JSONRPCNotification, JSONRPCRequest, JSONRPCResponse

from ..errors import InvalidRequestError
from .call import Call
from .handler import MCPHandler
from .handshake import Silent, shake_hands
from .live_session import STANDALONE, LiveSession
from .message_stream import MessageStream
from .messages import Message
from .standing import OPENED, read_on, stand

__all__ = ["StatefulHandler"]

SESSION_HEADER = "Mcp-Session-Id"
_RELAYED = ("notifications/cancelled", "notifications/progress")  # somebody waits for them, in whichever process


class StatefulHandler(MCPHandler):
    """What a handler does for clients that shook hands."""

    call: Call | None = None

    @property
    def owner(self) -> tuple[str, str]:
        """Whose an MCP session is: the user's, by this client. Not the grant's: who steps up keeps the session."""
        return self.user.user_id, self.client_id

    async def post_stateful(self, message: Message) -> None:
        """One message. Raises `AuthError`."""
        if isinstance(message, JSONRPCRequest) and message.method == "initialize":
            await self._shake_hands(message)
            return
        live = await self._session()
        if isinstance(message, JSONRPCRequest):
            await self._serve(live, message)
            return
        await self._take(live, message)
        self.set_status(202)
        self.finish()

    async def get_stateful(self) -> None:
        """The standing stream, or the rest of another one. Raises `AuthError`."""
        self.check_accept("text/event-stream")
        live = await self._session()
        name, n = _position(self.request.headers.get("Last-Event-ID"))
        if name == STANDALONE or n is None:
            await self._stand(live, n)
        else:
            await self._resume(live, name, n)

    async def delete_stateful(self) -> None:
        """The client is done with its session. Raises `AuthError`."""
        live = await self._session()
        await self.hosted.sessions.end(live)
        self.set_status(204)
        self.finish()

    def on_connection_close(self) -> None:
        """The client has gone; what it asked for goes on (2025-11-25, transports, "Sending Messages")."""
        super().on_connection_close()
        if self.call is not None:
            self.call.detach()

    async def _session(self) -> LiveSession:
        session_id = self.request.headers.get(SESSION_HEADER)
        if session_id is None:
            raise InvalidRequestError(f"The header {SESSION_HEADER} is missing: begin with initialize.")
        sessions = self.hosted.sessions
        await self.hosted.lifespan()
        self.peer = live = await sessions.find(session_id, self.owner)
        return live

    async def _shake_hands(self, request: JSONRPCRequest) -> None:
        self.check_handshake()
        self.hosted.handshakes.hit(self.user.user_id)
        self.enter()
        runner = await self.hosted.runner()
        handshake = await shake_hands(runner, request, Silent(self.lowercase_headers(), self.request, request.id))
        connection = handshake.connection
        if connection is not None and connection.client_params is not None:
            session_id = await self.hosted.sessions.create(
                self.owner, connection.protocol_version, connection.client_params
            )
            self.set_header(SESSION_HEADER, session_id)
        self.answer(handshake.answer)

    async def _serve(self, live: LiveSession, request: JSONRPCRequest) -> None:
        self.check_access(request.method, request.params)
        self.enter()
        self.call = call = Call(live, self, self.hosted.calls, request, self.lowercase_headers())
        call.start()
        await call.over
        if call.refusal is not None and not self._finished and not self._headers_written:
            raise call.refusal

    async def _take(self, live: LiveSession, message: Message) -> None:
        if isinstance(message, JSONRPCNotification):
            if message.method in _RELAYED:
                await live.receive(message)
            self.enter()
            await live.runner.on_notify(Silent(self.lowercase_headers(), self.request), message.method, message.params)
        elif isinstance(message, JSONRPCResponse | JSONRPCError):
            await live.receive(message)

    async def _stand(self, live: LiveSession, after: int | None) -> None:
        standing, events, channel = self.hosted.standing, self.sse_auth.events, live.channel(STANDALONE)
        # In the log this has a place among the messages: those before it are an earlier stream's, which then ends.
        opened = await events.publish(channel, "", event=OPENED)
        async with self.make_stream(MessageStream) as stream:
            standing.add(stream, live)
            try:
                with live.read_by(stream):
                    await stand(stream, events, channel, STANDALONE, opened, after)
            finally:
                standing.remove(stream)

    async def _resume(self, live: LiveSession, name: str, after: int) -> None:
        await live.announce("resumed", name)
        async with self.make_stream(MessageStream) as stream:
            with live.read_by(stream):
                await read_on(stream, self.sse_auth.events, live.channel(name), name, after)


def _position(last_event_id: str | None) -> tuple[str, int | None]:
    """Stream and number in a `Last-Event-ID`; what is not of our form names no stream but the standing one."""
    name, dot, number = (last_event_id or "").rpartition(".")
    if not dot or not name or len(name) > 64 or not number.isascii() or not number.isdigit() or len(number) > 18:
        return STANDALONE, None
    return name, int(number)
