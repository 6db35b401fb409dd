"""What became of every session's row, as MongoDB's own change stream tells it: the record that the rules of refresh are
judged by, whatever the servers say of themselves."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from pymongo import AsyncMongoClient
from pymongo.errors import PyMongoError

from tests.benchmarks.rows import percentile

PIPELINE = [{"$match": {"operationType": {"$in": ["insert", "update", "delete"]}}}]


@dataclass
class Row:
    """The newest of a session's row, as far as refresh is concerned."""

    token_version: int = 0
    fence: int = 0
    presented: int = 0
    owner: str | None = None
    state: str = "active"
    sent_at: float = 0.0
    """When the running lease was taken, milliseconds of the server."""
    gone: bool = False


@dataclass
class SessionHistory:
    """Follows the collection `sessions` of a database; use it as `async with`, around all that it is to judge."""

    uri: str
    database: str
    rows: dict[str, Row] = field(default_factory=dict)
    refreshes: Counter[str] = field(default_factory=Counter)
    """Token sets stored by refreshes, by session."""
    reattempts: Counter[str] = field(default_factory=Counter)
    """Leases for a second presentation, by session."""
    lost: Counter[str] = field(default_factory=Counter)
    """Times that a session needed its user, by reason."""
    lost_tokens: list[tuple[str, int]] = field(default_factory=list)
    """The same by session and token version."""
    restored_at: dict[str, float] = field(default_factory=dict)
    """When a session last had its user sign in again, by our monotonic clock."""
    stored_at: dict[str, float] = field(default_factory=dict)
    """When a session's newest token set was stored, milliseconds of the server."""
    leases: list[tuple[str, int, float]] = field(default_factory=list)
    """Session, presentation (1 or 2) and the server's milliseconds of each lease."""
    windows: list[float] = field(default_factory=list)
    """Milliseconds from each first lease of a token to the write of its result: in which a crash may cost a session."""
    violations: list[str] = field(default_factory=list)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    _task: asyncio.Task[None] | None = None
    _client: Any = None

    async def __aenter__(self) -> Self:
        self._client = AsyncMongoClient[dict[str, Any]](self.uri)
        sessions = self._client[self.database]["sessions"]
        # Opened here, so that nothing that is done afterwards escapes it.
        stream = await sessions.watch(PIPELINE)
        self._task = asyncio.create_task(self._follow(sessions, stream), name="session history")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._client.close()

    def crash_window(self) -> str:
        """The windows in words."""
        if len(self.windows) < 2:
            return "not measured"
        median, high = percentile(self.windows, 50), percentile(self.windows, 99)
        return f"median {median:.0f} ms, p99 {high:.0f} ms, worst {max(self.windows):.0f} ms"

    def under_way(self) -> set[str]:
        """Sessions with a presentation whose outcome is not stored."""
        return {name for name, row in self.rows.items() if row.presented and not row.gone}

    async def until(self, condition: Any, *, timeout: float) -> None:
        """Wait until `condition(self)`. Raises AssertionError after `timeout` seconds."""
        try:
            async with asyncio.timeout(timeout), self.changed:
                await self.changed.wait_for(lambda: condition(self))
        except TimeoutError:
            raise AssertionError(f"not within {timeout} s: {self.rows}") from None

    async def _follow(self, sessions: Any, stream: Any) -> None:
        token = stream.resume_token
        while True:
            try:
                async with stream:
                    async for change in stream:
                        token = stream.resume_token
                        await self._note(change)
            except PyMongoError:
                await asyncio.sleep(0.2)
            while True:
                try:
                    stream = await sessions.watch(PIPELINE, resume_after=token)
                    break
                except PyMongoError:
                    await asyncio.sleep(0.2)

    async def _note(self, change: Mapping[str, Any]) -> None:
        session_id = change["documentKey"]["_id"]
        row = self.rows.setdefault(session_id, Row())
        if change["operationType"] == "insert":
            document = change["fullDocument"]
            row.token_version, row.fence = document["token_version"], document["refresh"]["fence"]
        elif change["operationType"] == "delete":
            row.gone = True
        else:
            self._updated(session_id, row, change["updateDescription"]["updatedFields"], _milliseconds(change))
        async with self.changed:
            self.changed.notify_all()

    def _updated(self, session_id: str, row: Row, fields: Mapping[str, Any], at: float) -> None:
        refresh = fields.get("refresh", {})
        new = {name: fields.get(f"refresh.{name}", refresh.get(name)) for name in ("fence", "presented")}
        token_version = fields.get("token_version", row.token_version)
        state = fields.get("state", row.state)
        if new["fence"] is not None and new["fence"] != row.fence:
            if new["fence"] != row.fence + 1:
                self.violations.append(f"{session_id}: fence {row.fence} -> {new['fence']}")
            self._leased(session_id, row, new["presented"] or 0, at)
        if token_version != row.token_version:
            self._stored(session_id, row, token_version, fields, at)
        if state == "reauthorization" and row.state == "active":
            self.lost[str(fields.get("reauth_reason"))] += 1
            self.lost_tokens.append((session_id, row.token_version))
        row.fence = row.fence if new["fence"] is None else new["fence"]
        row.presented = row.presented if new["presented"] is None else new["presented"]
        row.token_version, row.state = token_version, state

    def _leased(self, session_id: str, row: Row, presented: int, at: float) -> None:
        row.sent_at = at
        self.leases.append((session_id, presented, at))
        if presented > 2:
            self.violations.append(f"{session_id}: token {row.token_version} presented {presented} times")
        if presented == 2:
            self.reattempts[session_id] += 1

    def _stored(self, session_id: str, row: Row, version: int, fields: Mapping[str, Any], at: float) -> None:
        if version != row.token_version + 1:
            self.violations.append(f"{session_id}: token version {row.token_version} -> {version}")
        if "credentials" in fields or any(name.startswith("credentials.") for name in fields):
            self.restored_at[session_id] = time.monotonic()  # only a sign-in brings a credential with its tokens
            return
        if not row.presented:
            self.violations.append(f"{session_id}: token {version} stored, which nobody had a lease for")
        self.refreshes[session_id] += 1
        self.stored_at[session_id] = at
        if row.presented == 1:
            self.windows.append(at - row.sent_at)


def _milliseconds(change: Mapping[str, Any]) -> float:
    return float(change["wallTime"].timestamp() * 1000)
