"""MCP sessions of the 2025 revisions as stored: what a process needs to go on with one that another has begun."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mcp_types import InitializeRequestParams

from ..clock import Clock
from ..errors import StoreUnavailableError
from ..stores.base import KeptRecord, KeptRecords

__all__ = ["MCPSession", "SessionRecords", "session_key", "session_kind"]

KIND = "mcp-session"
ATTEMPTS = 8
NOTED_EACH = 3600.0  # seconds in which a use is written once, and a twentieth of its life where that is shorter


@dataclass(frozen=True, slots=True, kw_only=True)
class MCPSession:
    """`owner`: the user's and the client's id, who alone may use it. `client`: the parameters of its `initialize`.
    `log_level` and `uris` are what it asked to be told. `expires_at`: epoch seconds."""

    key: str
    owner: tuple[str, str]
    protocol_version: str
    client: InitializeRequestParams
    log_level: str | None = None
    uris: frozenset[str] = frozenset()
    version: int = 0
    expires_at: float = 0.0


def session_key(session_id: str) -> str:
    """How a session is called wherever its id, which is as good as a capability, need not stand: its SHA-256."""
    return hashlib.sha256(session_id.encode("utf-8", "surrogatepass")).hexdigest()


def session_kind(user_id: str) -> str:
    """The kind of the records of one user's sessions (security best practices, "Session Hijacking": stored by user and
    session)."""
    return f"{KIND}:{hashlib.sha256(user_id.encode()).hexdigest()}"


class SessionRecords:
    """The sessions in the store, each user's by themselves: nobody's number or key reaches another's. Each lives until
    it was not used for `ttl` seconds; of one user's the `keep` used last live. Methods may raise
    `StoreUnavailableError`."""

    def __init__(self, kept: KeptRecords, clock: Clock, ttl: float, keep: int) -> None:
        self._kept = kept
        self._clock = clock
        self._ttl = ttl
        self._keep = keep

    async def create(
        self, owner: tuple[str, str], protocol_version: str, client: InitializeRequestParams
    ) -> tuple[str, Sequence[str]]:
        """A new session's id, 256 random bits of visible ASCII; and the keys of those that had to make room for it."""
        session_id = secrets.token_urlsafe(32)
        expires_at = self._clock.time() + self._ttl
        session = MCPSession(
            key=session_key(session_id),
            owner=owner,
            protocol_version=protocol_version,
            client=client,
            version=1,
            expires_at=expires_at,
        )
        kind = session_kind(owner[0])
        await self._kept.put(kind, session.key, _document(session), expires_at)
        trimmed = await self._kept.trim(kind, keep=self._keep, expiring_before=expires_at)
        return session_id, trimmed.removed

    async def find(self, user_id: str, key: str) -> MCPSession | None:
        """The user's session, or None: unknown, ended, expired. Counts as use."""
        kind = session_kind(user_id)
        record = await self._kept.get(kind, key)
        if record is None:
            return None
        session = _session(key, record)
        expires_at = self._clock.time() + self._ttl
        if expires_at - session.expires_at > min(NOTED_EACH, self._ttl * 0.05) and await self._kept.replace(
            kind, key, record.value, expires_at, version=record.version
        ):
            session = replace(session, version=session.version + 1, expires_at=expires_at)
        return session

    async def change(self, session: MCPSession, change: Callable[[MCPSession], MCPSession]) -> MCPSession | None:
        """Read, change, write; again when somebody else wrote. None where the session has ended."""
        kind, key = session_kind(session.owner[0]), session.key
        for _ in range(ATTEMPTS):
            record = await self._kept.get(kind, key)
            if record is None:
                return None
            changed = change(_session(key, record))
            if await self._kept.replace(kind, key, _document(changed), record.expires_at, version=record.version):
                return replace(changed, version=record.version + 1)
        raise StoreUnavailableError(reason=f"an MCP session was written by others {ATTEMPTS} times")

    async def end(self, session: MCPSession) -> None:
        """Remove the session."""
        await self._kept.delete(session_kind(session.owner[0]), session.key)


def _document(session: MCPSession) -> dict[str, Any]:
    return {
        "owner": list(session.owner),
        "protocol_version": session.protocol_version,
        "client": session.client.model_dump(mode="json", by_alias=True, exclude_none=True),
        "log_level": session.log_level,
        "uris": sorted(session.uris),
    }


def _session(key: str, record: KeptRecord) -> MCPSession:
    value = record.value
    user_id, client_id = value["owner"]
    return MCPSession(
        key=key,
        owner=(user_id, client_id),
        protocol_version=value["protocol_version"],
        client=InitializeRequestParams.model_validate(value["client"], by_name=False),
        log_level=value["log_level"],
        uris=frozenset(value["uris"]),
        version=record.version,
        expires_at=record.expires_at,
    )
