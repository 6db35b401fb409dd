"""`/sse` and `/messages`: HTTP with SSE, the transport of 2024-11-05. A session is a stream, and ends with it."""

from __future__ import annotations

import asyncio
import secrets
from typing import Any

from mcp_types.jsonrpc import JSONRPCError, JSONRPCNotification, JSONRPCRequest, JSONRPCResponse

from ..errors import ForbiddenError, InvalidRequestError, NotFoundError
from ..web.guards import single_arguments
from .handler import MCPHandler
from .handshake import Silent, shake_hands
from .message_stream import MessageStream
from .messages import Message, UnreadableMessage
from .refusals import refusal
from .served_request import ServedRequest
from .sse_peer import SSEPeer

__all__ = ["MessagesHandler", "SSEHandler"]


class _Request(ServedRequest):
    """A request whose messages and answer go where all goes."""

    async def _send(self, message: dict[str, Any]) -> None:
        await self._peer.say(message)

    async def _finish(self, message: dict[str, Any] | None) -> None:
        if message is not None:
            await self._peer.say(message)


class SSEHandler(MCPHandler):
    """The stream: first the URI that takes messages, then messages."""

    resource = "/sse"

    async def get(self) -> None:
        """Runs until the client goes, or its session ends."""
        self.check_accept("text/event-stream")
        hosted = self.hosted
        await hosted.lifespan()
        session_id = secrets.token_urlsafe(32)
        stream = self.make_stream(MessageStream)
        stream.first = f"event: endpoint\ndata: /messages?session_id={session_id}\n\n".encode()
        peer = SSEPeer(hosted.make_runner, session_id, (self.user.user_id, self.client_id))
        try:
            async with stream:
                hosted.sse_peers[session_id] = peer
                hosted.standing.add(stream, peer)
                await asyncio.get_running_loop().create_future()
        finally:
            hosted.sse_peers.pop(session_id, None)
            hosted.standing.remove(stream)
            peer.end()
            await peer.close()


class MessagesHandler(MCPHandler):
    """Where the client posts; what is answered comes on its stream."""

    resource = "/sse"

    async def post(self) -> None:
        """One message. Raises `AuthError`."""
        self.check_content()
        session_id = single_arguments(self.request, "session_id").get("session_id")
        if session_id is None:
            raise InvalidRequestError("The parameter session_id is missing: open /sse first.")
        self.peer = peer = self.hosted.sse_peers.get(session_id)
        if peer is None or peer.owner != (self.user.user_id, self.client_id):
            raise NotFoundError("There is no such stream in this process.")
        try:
            message, _ = self.read_message()
        except UnreadableMessage as unreadable:
            self.refuse(unreadable.error)
            return
        self.enter()
        await self._take(peer, message)
        self.set_status(202)
        self.finish()

    async def _take(self, peer: SSEPeer, message: Message) -> None:
        if isinstance(message, JSONRPCRequest):
            await self._serve(peer, message)
        elif isinstance(message, JSONRPCNotification):
            peer.take(message)
            await peer.runner.on_notify(self._silent(), message.method, message.params)
        elif isinstance(message, JSONRPCResponse | JSONRPCError):
            peer.take(message)

    async def _serve(self, peer: SSEPeer, request: JSONRPCRequest) -> None:
        if request.method == "initialize":  # what is posted next must find the session made
            self.check_handshake()
            handshake = await shake_hands(peer.runner, request, self._silent(request))
            await peer.say(handshake.answer)
            return
        try:
            self.check_access(request.method, request.params)
        except ForbiddenError as error:
            # On this transport clients look at the stream only: an answer to the POST would leave them waiting.
            document = {"error": error.code, "error_description": error.public_message}
            await peer.say(refusal(request, error, document, public_url=self.sse_auth.options.public_url))
            return
        _Request(peer, self, request, self.lowercase_headers()).start()

    def _silent(self, request: JSONRPCRequest | None = None) -> Silent:
        return Silent(self.lowercase_headers(), self.request, request.id if request is not None else None)
