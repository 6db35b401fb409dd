"""Sessions in the memory of one process: the embedded default."""

from __future__ import annotations

import asyncio
import heapq
import json
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from ..clock import Clock, SystemClock
from ..identity import RefreshState, Session, SessionState
from ..listeners import Listeners
from ..sealing import Keyring
from .base import (
    ChangeKind,
    ChangeListener,
    Lease,
    LeaseRefused,
    SealingKeys,
    SessionChange,
    SessionStore,
    VersionConflict,
)
from .memory_records import MemoryKeptRecords, MemorySingleUseRecords

__all__ = ["MemorySessionStore"]

# Expired sessions removed by one insert: more than one, so that the dead are removed faster than new ones come.
PURGE_STEPS = 8


class MemorySessionStore(SessionStore):
    """Sessions in dicts with an index for each look-up. Everything is gone with the process.

    Expired sessions are removed when somebody asks for them, and a few with each insert.
    """

    def __init__(self, *, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self.records = MemorySingleUseRecords(self._clock)
        self.kept = MemoryKeptRecords(self._clock)
        self.keyring = Keyring.generate()
        self._sessions: dict[str, Session] = {}
        self._by_credential: dict[bytes, str] = {}
        self._by_user: dict[str, set[str]] = {}
        self._by_sid: dict[str, set[str]] = {}
        self._by_subject: dict[tuple[str, str], set[str]] = {}
        self._by_reauth: dict[bytes, str] = {}
        # (ends_at when pushed, id): touching a session leaves its entry behind, which moves on when its time comes.
        self._endings: list[tuple[float, str]] = []
        self._listeners: Listeners[SessionChange] = Listeners()

    async def start(self) -> None:
        """Nothing needs to be made."""

    async def close(self) -> None:
        """Nothing was begun."""

    @property
    def feed_alive(self) -> bool:
        """Always: there is no other process."""
        return True

    async def ping(self) -> None:
        """Memory answers."""

    async def sealing_keys(self) -> SealingKeys:
        """Nothing is sealed that nobody else can read."""
        return SealingKeys(ring=(), values={})

    async def insert(self, session: Session) -> None:
        self._purge()
        if self._live(session.id) or self._taken(session):
            raise VersionConflict(session.id)
        self._put(replace(session, claims=_frozen(session.claims)))
        heapq.heappush(self._endings, (session.ends_at, session.id))

    async def find(self, session_id: str) -> Session | None:
        return self._live(session_id)

    async def find_by_credential(self, digest: bytes) -> Session | None:
        return self._live(self._by_credential.get(digest))

    async def find_by_reauth(self, digest: bytes) -> Session | None:
        return self._live(self._by_reauth.get(digest))

    async def find_by_user(self, user_id: str) -> list[Session]:
        return self._all(self._by_user.get(user_id, ()))

    async def find_by_client(self, client_id: str) -> AsyncIterator[Session]:
        # Asked by operators, once in a while: no index for it.
        for session_id in tuple(self._sessions):
            session = self._live(session_id)
            if session is not None and any(grant.client_id == client_id for grant in session.grants):
                yield session

    async def find_by_sid(self, sid: str) -> list[Session]:
        return self._all(self._by_sid.get(sid, ()))

    async def find_by_subject(self, issuer: str, subject: str) -> list[Session]:
        return self._all(self._by_subject.get((issuer, subject), ()))

    async def update(self, session: Session) -> Session:
        row = self._live(session.id)
        if row is None or row.version != session.version or self._taken(session):
            raise VersionConflict(session.id)
        same_token = row.token_version == session.token_version
        return self._write(
            replace(
                session,
                claims=_frozen(session.claims),
                refresh=row.refresh if same_token else RefreshState(fence=row.refresh.fence),
                last_seen=row.last_seen,
                idle_expires_at=row.idle_expires_at,
            )
        )

    async def touch(self, session_id: str, last_seen: float, idle_expires_at: float) -> None:
        row = self._live(session_id)
        if row is not None:
            self._sessions[session_id] = replace(
                row,
                last_seen=max(row.last_seen, last_seen),
                idle_expires_at=max(row.idle_expires_at, idle_expires_at),
            )

    async def delete(self, session_id: str) -> bool:
        row = self._live(session_id)
        if row is not None:
            self._end(row)
        return row is not None

    async def delete_by_user(self, user_id: str) -> list[str]:
        sessions = await self.find_by_user(user_id)
        for session in sessions:
            self._end(session)
        return [session.id for session in sessions]

    async def take_lease(
        self,
        session_id: str,
        *,
        owner: str,
        token_version: int,
        intent: bytes,
        duration: float,
        seen: int | None = None,
    ) -> Lease | LeaseRefused:
        row = self._live(session_id)
        if row is None:
            return LeaseRefused(session=None, expired=True)
        now, state = self._clock.time(), row.refresh
        expired = state.until <= now
        spendable = state.presented == 0 or (state.presented == 1 and (state.owner is None or seen == state.fence))
        if row.state is not SessionState.ACTIVE or row.token_version != token_version or not (expired and spendable):
            return LeaseRefused(session=row, expired=expired)
        leased = replace(
            state,
            owner=owner,
            until=now + duration,
            fence=state.fence + 1,
            intent=intent,
            presented=state.presented + 1,
        )
        return Lease(
            session=self._put(replace(row, refresh=leased)), fence=leased.fence, reattempt=leased.presented > 1
        )

    async def renew_lease(self, session_id: str, fence: int, duration: float) -> bool:
        row = self._leased(session_id, fence)
        if row is not None:
            self._put(replace(row, refresh=replace(row.refresh, until=self._clock.time() + duration)))
        return row is not None

    async def release_lease(self, session_id: str, fence: int, state: RefreshState) -> None:
        row = self._leased(session_id, fence)
        if row is not None:
            self._put(replace(row, refresh=replace(state, owner=None, until=0.0, fence=fence)))

    async def save_refresh(
        self, session: Session, *, spent_version: int, lost_scopes: frozenset[str] = frozenset()
    ) -> Session | None:
        row = self._live(session.id)
        if row is None:
            return None
        if row.state is not SessionState.ACTIVE or row.token_version != spent_version:
            again = row.token_version == spent_version + 1 and row.token_set == session.token_set
            return row if again else None
        return self._write(
            replace(
                row,
                scopes=row.scopes - lost_scopes,
                token_set=session.token_set,
                token_version=spent_version + 1,
                refresh=RefreshState(fence=row.refresh.fence),
            )
        )

    async def require_reauthorization(self, session: Session, *, spent_version: int) -> Session | None:
        row = self._live(session.id)
        if row is None or row.token_version != spent_version:
            return None
        if row.state is not SessionState.ACTIVE:
            return row if row.reauth == session.reauth else None
        return self._write(
            replace(
                row,
                state=SessionState.REAUTHORIZATION,
                reauth=session.reauth,
                reauth_reason=session.reauth_reason,
                refresh=RefreshState(fence=row.refresh.fence),
            )
        )

    def subscribe(self, listener: ChangeListener) -> Callable[[], None]:
        return self._listeners.add(listener)

    def _live(self, session_id: str | None) -> Session | None:
        row = self._sessions.get(session_id) if session_id is not None else None
        if row is not None and row.ends_at <= self._clock.time():
            self._end(row)
            return None
        return row

    def _all(self, session_ids: Iterable[str]) -> list[Session]:
        """Those that have not ended, oldest first."""
        sessions = [self._live(session_id) for session_id in tuple(session_ids)]
        return sorted((session for session in sessions if session), key=lambda session: session.created_at)

    def _leased(self, session_id: str, fence: int) -> Session | None:
        row = self._live(session_id)
        return row if row is not None and row.refresh.fence == fence and row.refresh.owner is not None else None

    def _taken(self, session: Session) -> bool:
        """Whether a credential of the session is another one's."""
        owners = (self._by_credential.get(credential.digest) for credential in session.credentials)
        return any(owner not in (None, session.id) and self._live(owner) for owner in owners)

    def _write(self, session: Session) -> Session:
        """Store the next version and tell."""
        row = self._put(replace(session, version=session.version + 1))
        self._tell(SessionChange(ChangeKind.CHANGED, row.id, row.version))
        return row

    def _put(self, session: Session) -> Session:
        self._forget(session.id)
        self._sessions[session.id] = session
        for groups, key in self._groups(session):
            groups.setdefault(key, set()).add(session.id)
        for credential in session.credentials:
            self._by_credential[credential.digest] = session.id
        if session.reauth is not None:
            self._by_reauth[session.reauth.digest()] = session.id
        return session

    def _forget(self, session_id: str) -> None:
        old = self._sessions.pop(session_id, None)
        if old is None:
            return
        for credential in old.credentials:
            self._by_credential.pop(credential.digest, None)
        if old.reauth is not None:
            self._by_reauth.pop(old.reauth.digest(), None)
        for groups, key in self._groups(old):
            groups[key].discard(session_id)
            if not groups[key]:
                del groups[key]

    def _groups(self, session: Session) -> Iterator[tuple[dict[Any, set[str]], Any]]:
        """The indexes that hold several sessions a key, with the session's own key."""
        yield self._by_user, session.user_id
        if session.sid is not None:
            yield self._by_sid, session.sid
        if session.subject is not None:
            yield self._by_subject, session.subject

    def _end(self, session: Session) -> None:
        self._forget(session.id)
        self._tell(SessionChange(ChangeKind.ENDED, session.id))

    def _tell(self, change: SessionChange) -> None:
        # Not at once: as with a feed from elsewhere, a listener never runs inside the call that made the change.
        asyncio.get_running_loop().call_soon(self._listeners.notify, change)

    def _purge(self) -> None:
        now = self._clock.time()
        for _ in range(PURGE_STEPS):
            if not self._endings or self._endings[0][0] > now:
                return
            _, session_id = heapq.heappop(self._endings)
            row = self._live(session_id)
            if row is not None:
                heapq.heappush(self._endings, (row.ends_at, session_id))


def _frozen(claims: Mapping[str, Any]) -> Mapping[str, Any]:
    """A copy that the caller cannot change, and as JSON gives it back, which is what other stores keep."""
    return MappingProxyType(json.loads(json.dumps(dict(claims))))
