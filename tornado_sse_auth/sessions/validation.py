"""Which session a credential opens: from the cache, the store, or an authorization server of somebody else."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

from ..audit import AuditLog
from ..clock import Clock
from ..errors import ExpiredTokenError, InvalidTokenError, StoreUnavailableError
from ..identity import Credential, CredentialKind, Secret, Session, SessionState
from ..metrics import Metrics
from ..oauth import BearerVerifier
from ..options import Options
from ..stores.base import SessionStore
from .cache import Authenticated, SessionCache
from .credentials import PresentedCredential
from .grant_changes import answered
from .read_ahead import ReadAhead
from .session_writes import SessionWrites
from .verified_bearers import verify_bearer

__all__ = ["SessionValidation"]

_log = logging.getLogger(__name__)


class SessionValidation:
    """Answers each request, fills the cache, and counts what it finds as used."""

    def __init__(
        self,
        store: SessionStore,
        cache: SessionCache,
        writes: SessionWrites,
        options: Options,
        *,
        verifiers: Sequence[BearerVerifier],
        metrics: Metrics,
        clock: Clock,
        audit: AuditLog,
    ) -> None:
        self._store = store
        self._cache = cache
        self._writes = writes
        self._options = options
        self._verifiers = verifiers
        self._metrics = metrics
        self._clock = clock
        self._audit = audit
        self._touch_interval = min(3600.0, options.idle_ttl / 20)
        self._read_ahead = ReadAhead(store, cache, due=self._due, metrics=metrics, clock=clock)

    async def close(self) -> None:
        """End what runs in the background. Twice is once."""
        await self._read_ahead.close()

    def cached(self, presented: PresentedCredential) -> Authenticated | None:
        """The session that `presented` opens, if the cache has it and it is still valid. Costs no wait."""
        started = self._clock.monotonic()
        entry = self._cache.get(presented.digest)
        if entry is None:
            return None
        found = entry.found
        if found.credential.kind is not presented.kind or found.ends_at <= self._clock.time():
            return None
        if started >= entry.aging_at and presented.ours:
            self._read_ahead.begin(presented.digest, found)
        self._metrics.timing("session.validate", self._clock.monotonic() - started, "session.validate.hit")
        return found

    async def validate(self, presented: PresentedCredential) -> Authenticated:
        """The session that `presented` opens, from the cache or the store, if it is good without a resource. Raises
        what `read` raises."""
        found = self.cached(presented)
        if found is None:
            return await self.read(presented, None)
        found.check_audience(None)
        return found

    async def read(self, presented: PresentedCredential, resource: str | None) -> Authenticated:
        """The session that `presented` opens at this resource, from the store or a verifier, whatever the cache has.
        What is refused here counts as no use of it.

        Raises `InvalidTokenError`, and `ProviderUnavailableError` where a verifier lacks its authorization server."""
        started = self._clock.monotonic()
        try:
            found = await self._find(presented, resource)
        except InvalidTokenError:
            self._metrics.increment("session.validate.rejected")
            raise
        self._metrics.timing("session.validate", self._clock.monotonic() - started)
        return found

    async def _find(self, presented: PresentedCredential, resource: str | None) -> Authenticated:
        found = None
        if presented.ours:
            self._metrics.increment("session.validate.miss")
            found = await self._look_up(presented, resource)
        if found is None and self._verifiers:
            found = await self._verify(presented)
        if found is None:
            raise InvalidTokenError(reason="unknown or revoked credential")
        found.check_audience(resource)
        return found

    async def _look_up(self, presented: PresentedCredential, resource: str | None) -> Authenticated | None:
        digest = presented.digest
        while True:
            begun = self._cache.begin_fill()
            started = self._clock.monotonic()
            session = await self._store.find_by_credential(digest)
            self._metrics.timing("store.lookup", self._clock.monotonic() - started)
            if session is None or self._cache.is_ended(session.id):
                return None
            credential = session.credential(digest)
            if credential is None:
                return None
            # A cookie's value is no bearer and the other way about: what one leaks, the other does not open.
            if credential.kind is not presented.kind:
                raise InvalidTokenError(reason="a credential of another kind")
            if credential.expires_at <= self._clock.time():
                raise ExpiredTokenError(reason="expired credential")
            found = Authenticated(session, credential)
            found.check_audience(resource)
            waiting = session.state is SessionState.REAUTHORIZATION
            if waiting and session.reauth is None:
                session = await self._make_reauthorizable(session)
                found = Authenticated(session, credential)
            elif not waiting and await self._note_arrival(session, credential):
                continue
            if self._cache.fill(digest, found, begun):
                touched = session if waiting else await self._touch(session)
                return found if touched is session else Authenticated(touched, credential)

    async def _verify(self, presented: PresentedCredential) -> Authenticated | None:
        begun = self._cache.begin_fill()
        found = await verify_bearer(self._verifiers, presented, public_url=self._options.public_url)
        if found is None or self._cache.is_ended(found.session.id):
            return None
        self._cache.fill(presented.digest, found, begun)
        return found

    async def _note_arrival(self, session: Session, credential: Credential) -> bool:
        """The first use of an access token shows that the answer with it has arrived; True when that was written."""
        grant = session.grant(credential.grant)
        if grant is None or grant.answered:
            return False
        now = self._clock.time()
        try:
            noted = await self._writes.update(session.id, lambda stored: answered(stored, credential.digest, now=now))
        except StoreUnavailableError as error:
            _log.warning("the first use of a token of grant %s was not noted: %s", grant.id, error)
            return False
        return noted is not None

    async def _make_reauthorizable(self, session: Session) -> Session:
        """A session whose tokens no key opens has no authorization URL of its own yet."""

        def change(stored: Session) -> Session | None:
            if stored.state is SessionState.ACTIVE or stored.reauth is not None:
                return None
            return replace(stored, reauth=Secret.random(), reauth_reason=stored.reauth_reason or "unreadable")

        self._audit.write(
            "refresh",
            outcome="reauthorization",
            user_id=session.user_id,
            session_id=session.id,
            reason=session.reauth_reason or "unreadable",
        )
        changed = await self._writes.update(session.id, change)
        return changed or await self._store.find(session.id) or session

    async def look_nobody_up(self) -> None:
        """Look a credential up that nobody has, as a request does: for health."""
        nobody = Secret.random()
        await self._look_up(PresentedCredential(nobody, nobody.digest(), CredentialKind.BEARER, True), None)

    async def touch(self, session_id: str) -> Session | None:
        """Count an open stream as use of its session; the session as it stands, or None when it is gone."""
        session = await self._store.find(session_id)
        return session and await self._touch(session)

    def _due(self, session: Session, credential: Credential) -> bool:
        if session.state is SessionState.REAUTHORIZATION:  # which is not touched while it waits
            return session.reauth is None
        grant = session.grant(credential.grant)
        return self._unseen(session) or (grant is not None and not grant.answered)

    def _unseen(self, session: Session) -> bool:
        return self._clock.time() - session.last_seen >= self._touch_interval

    async def _touch(self, session: Session) -> Session:
        if not self._unseen(session):
            return session
        now = self._clock.time()
        idle_expires_at = now + self._options.idle_ttl
        try:
            await self._store.touch(session.id, now, idle_expires_at)
        except StoreUnavailableError as error:
            _log.warning("session %s was not touched: %s", session.id, error)
            return session
        return replace(session, last_seen=now, idle_expires_at=idle_expires_at)
