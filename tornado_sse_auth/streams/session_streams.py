"""The streams of one session, and those who wait for news of it."""

from __future__ import annotations

import asyncio
from typing import Generic, Protocol, TypeVar

from ..identity import Session, UserContext

__all__ = ["SessionStreams"]


class Scoped(Protocol):
    """A stream: `scopes` are those of the grant's token that opened it, None for all of the session's."""

    scopes: frozenset[str] | None


S = TypeVar("S", bound=Scoped)


class SessionStreams(Generic[S]):
    """The open streams of one session in this process, with the session's newest version."""

    __slots__ = ("_news", "session", "streams", "user")

    def __init__(self, session: Session) -> None:
        self.session = session
        self.user: UserContext = session.user_context()
        self.streams: dict[S, None] = {}
        self._news: asyncio.Event | None = None

    def user_of(self, stream: S) -> UserContext:
        """The user as this stream may see it: the token of a grant may be good for less than the session."""
        return self.user if stream.scopes is None else self.session.user_context(stream.scopes)

    def update(self, session: Session) -> None:
        """Take over a newer version."""
        self.session = session
        self.user = session.user_context()
        self.tell()

    async def news(self, timeout: float) -> None:
        """Wait for a newer version, or the end, at most `timeout` seconds."""
        if self._news is None:
            self._news = asyncio.Event()
        try:
            async with asyncio.timeout(timeout):
                await self._news.wait()
        except TimeoutError:
            return

    def tell(self) -> None:
        """Wake who waits for news."""
        if self._news is not None:
            self._news.set()
            self._news = None
