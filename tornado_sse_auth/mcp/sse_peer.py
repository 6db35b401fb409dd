"""A client of 2024-11-05: its session is a stream, and ends with it."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from ..errors import StreamEnded
from ..streams.event import chunk
from .messages import encode, event
from .peer import MakeRunner, Peer

__all__ = ["SSEPeer"]

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
