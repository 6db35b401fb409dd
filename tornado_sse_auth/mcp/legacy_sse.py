"""`/sse` and `/messages`: HTTP with SSE, the transport of 2024-11-05. A session is a stream, and ends with it."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Mapping
from typing import Any

from mcp_types.jsonrpc import JSONRPCError, JSONRPCNotification, JSONRPCRequest, JSONRPCResponse

from ..errors import ForbiddenError, InvalidRequestError, NotFoundError, StreamEnded
from ..streams.event import chunk
from ..web.guards import single_arguments
from .handler import MCPHandler
from .handshake import Silent, shake_hands
from .message_stream import MessageStream
from .messages import Message, UnreadableMessage, encode, event, read_message
from .peer import MakeRunner, Peer
from .refusals import refusal
from .served_request import ServedRequest

__all__ = ["MessagesHandler", "SSEHandler", "SSEPeer"]

REVISION = "2024-11-05"


class SSEPeer(Peer):
    """A client with an open `/sse` stream in this process, which carries everything that is said to it."""

    def __init__(self, make_runner: MakeRunner, session_id: str, owner: tuple[str, str]) -> None:
        super().__init__(make_runner, session_id=session_id, protocol_version=REVISION)
        self.owner = owner
        self.protocol_version = REVISION
        self.log_level = None
        self.uris = frozenset()

    async def say(self, message: Mapping[str, Any]) -> None:
        """Send a message, when there is room."""
        if self.standing is not None:
            with contextlib.suppress(StreamEnded):
                await self.standing.put(chunk(event(encode(message))))

    async def set_level(self, level: str) -> None:
        """For as long as the stream is open."""
        self.log_level = level

    async def watch(self, uri: str, *, on: bool) -> None:
        """For as long as the stream is open."""
        self.uris = self.uris | {uri} if on else self.uris - {uri}


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
        endpoint = self.endpoint
        await endpoint.lifespan()
        session_id = secrets.token_urlsafe(32)
        stream = self.make_stream(MessageStream)
        stream.first = f"event: endpoint\ndata: /messages?session_id={session_id}\n\n".encode()
        peer = SSEPeer(endpoint.make_runner, session_id, (self.user.user_id, self.client_id))
        try:
            async with stream:
                endpoint.sse_peers[session_id] = peer
                endpoint.standing.add(stream, peer)
                await asyncio.get_running_loop().create_future()
        finally:
            endpoint.sse_peers.pop(session_id, None)
            endpoint.standing.remove(stream)
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
        self.peer = peer = self.endpoint.sse_peers.get(session_id)
        if peer is None or peer.owner != (self.user.user_id, self.client_id):
            raise NotFoundError("There is no such stream in this process.")
        try:
            message, _ = read_message(self.request.body)
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
            self.endpoint.check_access(self, request.method, request.params)
        except ForbiddenError as error:
            # On this transport clients look at the stream only: an answer to the POST would leave them waiting.
            document = {"error": error.code, "error_description": error.public_message}
            await peer.say(refusal(request, error, document, public_url=self.sse_auth.options.public_url))
            return
        _Request(peer, self, request, self.lowercase_headers()).start()

    def _silent(self, request: JSONRPCRequest | None = None) -> Silent:
        return Silent(self.lowercase_headers(), self.request, request.id if request is not None else None)
