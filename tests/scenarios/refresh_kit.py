"""One process that refreshes: a refresher over a memory store and the scripted provider, by a clock that stands."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from tests.parts.scripted_provider import ScriptedProvider
from tests.scenarios.server import SCOPES, provider_at
from tornado_sse_auth.audit import AuditLog
from tornado_sse_auth.errors import StoreUnavailableError
from tornado_sse_auth.identity import Secret, Session, TokenSet
from tornado_sse_auth.oauth import OAuthProvider, default_identity_mapper
from tornado_sse_auth.options import Options
from tornado_sse_auth.sessions.manager import SessionManager
from tornado_sse_auth.sessions.token_refresh import TokenRefresher
from tornado_sse_auth.stores import MemorySessionStore
from tornado_sse_auth.testing import ManualClock, RecordingMetrics


class FlakyStore(MemorySessionStore):
    """A memory store whose saving of refreshes can be away."""

    away = False
    refused = 0

    async def save_refresh(
        self, session: Session, *, spent_version: int, lost_scopes: frozenset[str] = frozenset()
    ) -> Session | None:
        if self.away:
            self.refused += 1
            raise StoreUnavailableError(reason="away, says the test")
        return await super().save_refresh(session, spent_version=spent_version, lost_scopes=lost_scopes)


@dataclass
class Heard:
    """A listener and an index of open sessions: every session counts as open."""

    changed: list[Session] = field(default_factory=list)
    ended: list[tuple[str, str]] = field(default_factory=list)

    def session_changed(self, session: Session) -> None:
        self.changed.append(session)

    def session_ended(self, session_id: str, reason: str) -> None:
        self.ended.append((session_id, reason))

    def version(self, session_id: str) -> int | None:
        return 0

    def session_ids(self) -> Iterable[str]:
        return ()


@dataclass
class Kit:
    """One process: a refresher over a store and the scripted provider."""

    scripted: ScriptedProvider
    store: FlakyStore
    clock: ManualClock
    metrics: RecordingMetrics
    provider: OAuthProvider
    sessions: SessionManager
    refresher: TokenRefresher
    heard: Heard

    async def session(self, *, subject: str = "alice", life: float = 300, **token_set: Any) -> Session:
        """A session as after a sign-in whose access token has just expired."""
        tokens = self.scripted.issue(subject, SCOPES)
        now = self.clock.time()
        values: dict[str, Any] = {
            "access_token": Secret(tokens["access_token"]),
            "refresh_token": Secret(tokens["refresh_token"]),
            "issued_at": now - life,
            "expires_at": now,
            "scopes": frozenset(SCOPES.split()),
        }
        claims = {"iss": self.scripted.issuer, "sub": subject}
        session, _ = await self.sessions.create(
            user_id=f"{self.scripted.issuer}|{subject}",
            scopes=SCOPES.split(),
            claims=claims,
            token_set=TokenSet(**{**values, **token_set}),
        )
        return session

    def another(self, **options: Any) -> TokenRefresher:
        """The refresher of one more process over the same store."""
        return make_refresher(self.store, self.provider, self.sessions, self.metrics, self.clock, **options)

    async def settled(self, session: Session) -> None:
        """One refresh and all that follows from it."""
        await self.attempt(session)
        while self.refresher._flights:
            task = self.refresher._flights[session.id].task
            assert task is not None
            await asyncio.wait_for(asyncio.shield(task), 10)

    async def attempt(self, session: Session) -> Session:
        return await self.refresher.attempt(session.id, session.token_version)

    async def row(self, session: Session) -> Session:
        found = await self.store.find(session.id)
        assert found is not None
        return found

    def presentations(self, session: Session) -> int:
        assert session.token_set is not None
        assert session.token_set.refresh_token is not None
        token = session.token_set.refresh_token.reveal()
        return len(self.scripted.calls("token", refresh_token=token))


async def make_kit(scripted: ScriptedProvider, store: FlakyStore, clock: ManualClock) -> Kit:
    metrics = RecordingMetrics()
    provider = provider_at(scripted, timeout=2.0, refresh_timeout=2.0, metrics=metrics)
    await provider.start()
    options = Options(public_url="http://127.0.0.1:8000")
    audit = AuditLog(clock)
    sessions = SessionManager(store, options, metrics=metrics, clock=clock, audit=audit, revoker=provider)
    heard = Heard()
    sessions.watch.start(heard, heard)
    refresher = make_refresher(store, provider, sessions, metrics, clock)
    return Kit(scripted, store, clock, metrics, provider, sessions, refresher, heard)


def make_refresher(
    store: FlakyStore,
    provider: OAuthProvider,
    sessions: SessionManager,
    metrics: RecordingMetrics,
    clock: ManualClock,
    **options: Any,
) -> TokenRefresher:
    return TokenRefresher(
        store,
        provider,
        sessions,
        Options(public_url="http://127.0.0.1:8000", **options),
        identity_mapper=default_identity_mapper,
        metrics=metrics,
        clock=clock,
        audit=AuditLog(clock),
    )
