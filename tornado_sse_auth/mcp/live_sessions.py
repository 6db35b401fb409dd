"""The MCP sessions that this process has at hand."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable
from typing import Any

from mcp_types import InitializeRequestParams

from ..errors import NotFoundError, StoreUnavailableError
from ..middleware import SSEAuthenticationMiddleware
from .live_session import LiveSession, inbox
from .peer import MakeRunner
from .session_records import MCPSession, SessionRecords, session_key

__all__ = ["LiveSessions"]

_log = logging.getLogger(__name__)

TRUSTED_FOR = 1.0  # seconds in which a session is not looked up again: what ends elsewhere is known within them
READ_AGAIN_AFTER = 1.0  # seconds, where the store did not answer
IDLE = 60.0  # seconds after which one that nobody waits for is let go of


class LiveSessions:
    """Finds sessions in the store and keeps those that are in use. One whose process died is taken up by the next that
    is asked for it: what the client said at the beginning is stored."""

    def __init__(
        self, auth: SSEAuthenticationMiddleware, make_runner: MakeRunner, *, max_sessions_per_user: int
    ) -> None:
        self.records = SessionRecords(auth.kept, auth.clock, auth.options.idle_ttl, max_sessions_per_user)
        self._auth = auth
        self._make_runner = make_runner
        self._live: OrderedDict[str, LiveSession] = OrderedDict()  # the one used last is last
        self._tasks: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        return len(self._live)

    async def create(self, owner: tuple[str, str], protocol_version: str, client: InitializeRequestParams) -> str:
        """A new session's id. Raises `StoreUnavailableError`."""
        session_id, evicted = await self.records.create(owner, protocol_version, client)
        for key in evicted:
            try:
                await self._auth.events.publish(inbox(key), {"value": ""}, event="ended")
            except StoreUnavailableError as error:  # its next request is told, and what is open goes on until then
                _log.warning("the end of an MCP session was not told: %s", error)
        return session_id

    async def find(self, session_id: str, owner: tuple[str, str]) -> LiveSession:
        """The caller's session. Raises `NotFoundError` for one that has ended, never was, or is somebody else's."""
        key = session_key(session_id)
        now = self._auth.clock.monotonic()
        live = self._live.get(key)
        if live is None or live.ended or now - live.checked_at > TRUSTED_FOR:
            session = await self.records.find(owner[0], key)
            live = self._live.get(key)
            if session is None:
                if live is not None:
                    await self._forget(live)
                raise NotFoundError("There is no such MCP session.")
            if live is None:
                live = self._take_up(session, session_id)
            elif session.version >= live.session.version:
                live.session = session
            live.checked_at = now
        if live.session.owner != owner:
            raise NotFoundError("There is no such MCP session.")
        live.used_at = now
        self._live.move_to_end(key)
        self._let_go(now)
        return live

    async def end(self, live: LiveSession) -> None:
        """The client has ended it: everywhere within a second."""
        await self.records.end(live.session)
        await live.announce("ended")
        await self._forget(live)

    async def close(self) -> None:
        """Let go of all of them. Twice is once."""
        live, self._live = self._live, OrderedDict()
        await asyncio.gather(*(session.close() for session in live.values()))
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=2.0)
            for task in late:
                task.cancel()

    def _take_up(self, session: MCPSession, session_id: str) -> LiveSession:
        live = LiveSession(session, session_id, self._make_runner, self.records, self._auth.events)
        live.on_changed = self._reload
        self._live[session.key] = live
        return live

    def _reload(self, live: LiveSession) -> None:
        live.checked_at = 0.0
        if live.busy:
            self._spawn(self._read_again(live))

    async def _read_again(self, live: LiveSession) -> None:
        while self._live.get(live.session.key) is live:
            try:
                session = await self.records.find(live.session.owner[0], live.session.key)
            except StoreUnavailableError as error:  # news are lost just when the store is
                _log.debug("an MCP session is not read yet: %s", error)
                await asyncio.sleep(READ_AGAIN_AFTER)
                continue
            if session is None:
                await self._forget(live)
            elif session.version >= live.session.version:
                live.session = session
            return

    async def _forget(self, live: LiveSession) -> None:
        live.end()
        self._live.pop(live.session.key, None)
        await live.close()

    def _let_go(self, now: float) -> None:
        for live in tuple(self._live.values()):
            if now - live.used_at < IDLE:
                return
            if live.busy:
                live.used_at = now
                self._live.move_to_end(live.session.key)
            else:
                del self._live[live.session.key]
                self._spawn(live.close())

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
