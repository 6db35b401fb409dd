"""Sessions from sign-in to end: create, sign in, sign out, revoke. What else is done to them stands beside this."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from ..audit import AuditLog
from ..clock import Clock
from ..errors import InvalidTokenError, NotFoundError
from ..identity import CredentialKind, Secret, Session, SessionState, TokenSet
from ..metrics import Metrics
from ..oauth import BearerVerifier
from ..options import Options
from ..stores.base import SessionStore
from .cache import Authenticated, SessionCache
from .changes import SignedInUser, new_session, revived, with_bearer, without_credential
from .credentials import PresentedCredential, issue
from .grant_changes import without_grant
from .requirements import Requirements
from .session_writes import SessionWrites
from .upstream_revocation import TokenRevoker, UpstreamRevocation
from .validation import SessionValidation
from .watch import SessionWatch

__all__ = ["SessionManager"]

T = TypeVar("T")


class SessionManager:
    """Owner of the session cache, the watch and what is done to sessions. Methods that ask the store may raise
    `StoreUnavailableError`."""

    def __init__(
        self,
        store: SessionStore,
        options: Options,
        *,
        metrics: Metrics,
        clock: Clock,
        audit: AuditLog,
        revoker: TokenRevoker | None = None,
        verifiers: Sequence[BearerVerifier] = (),
    ) -> None:
        self._store = store
        self._options = options
        self._clock = clock
        self._audit = audit
        # What is in use is read again, and counted as used, well before it would end as unused.
        cache_ttl = min(options.session_cache_ttl, options.idle_ttl / 2)
        self._cache = SessionCache(size=options.session_cache_size, ttl=cache_ttl, clock=clock)
        self.watch = SessionWatch(store, self._cache, clock)
        self._writes = SessionWrites(store, self.watch, metrics=metrics, clock=clock)
        self._validation = SessionValidation(
            store,
            self._cache,
            self._writes,
            options,
            verifiers=verifiers,
            metrics=metrics,
            clock=clock,
            audit=audit,
        )
        self._upstream = UpstreamRevocation(store, revoker)

    async def close(self, grace: float = 2.0) -> None:
        """End what runs in the background, giving it `grace` seconds. Twice is once."""
        await self.watch.close()
        await self._validation.close()
        await self._upstream.close(grace)

    # -- a request -------------------------------------------------------------------------------------------------

    def cached(self, presented: PresentedCredential) -> Authenticated | None:
        """The session that `presented` opens, if the cache has it and it is still valid. Costs no wait."""
        return self._validation.cached(presented)

    async def validate(self, presented: PresentedCredential) -> Authenticated:
        """The session that `presented` opens without a resource, from the cache or the store. Raises what `read`
        raises."""
        return await self._validation.validate(presented)

    async def read(self, presented: PresentedCredential, resource: str | None) -> Authenticated:
        """The session that `presented` opens at the resource of this URI, whatever the cache has. Raises
        `InvalidTokenError`, and `ProviderUnavailableError` where a verifier lacks its authorization server."""
        return await self._validation.read(presented, resource)

    async def touch(self, session_id: str) -> Session | None:
        """Count an open stream as use of its session; the session as it stands, or None when it is gone."""
        return await self._validation.touch(session_id)

    async def look_nobody_up(self) -> None:
        """Look a credential up that nobody has, as a request does: for health."""
        await self._validation.look_nobody_up()

    # -- sign-in ---------------------------------------------------------------------------------------------------

    async def create(
        self,
        *,
        user_id: str,
        scopes: Iterable[str] = (),
        permissions: Iterable[str] = (),
        subscription: str | None = None,
        claims: Mapping[str, Any] | None = None,
        token_set: TokenSet | None = None,
        kind: CredentialKind = CredentialKind.COOKIE,
    ) -> tuple[Session, Secret]:
        """A new session for an application with a sign-in of its own, and its first credential (a cookie unless
        `kind` says otherwise). Beyond `max_sessions_per_user` the user's oldest session ends."""
        names = Requirements.of(scopes, permissions)
        user = SignedInUser(
            user_id=user_id,
            scopes=names.scopes,
            permissions=names.permissions,
            subscription=subscription,
            claims=claims or {},
            token_set=token_set,
        )
        return await self._create(user, kind)

    async def _create(self, user: SignedInUser, kind: CredentialKind) -> tuple[Session, Secret]:
        now = self._clock.time()
        secret, credential = issue(kind, now=now, expires_at=now + self._options.session_ttl)
        session = new_session(user, credential, now=now, options=self._options)
        await self._end_surplus(user.user_id)
        await self.written(self._store.insert(session))
        return session, secret

    async def _end_surplus(self, user_id: str) -> None:
        sessions = await self._store.find_by_user(user_id)
        for session in sessions[: max(0, len(sessions) - self._options.max_sessions_per_user + 1)]:
            await self.revoke(session.id, reason="too many sessions")

    async def sign_in(
        self, user: SignedInUser, *, revive: str | None = None, previous: Secret | None = None
    ) -> tuple[Session, Secret]:
        """The session after a sign-in at the provider, and the browser's new cookie.

        `revive` is the id of the session that needs its user: when it is this user's, it gets the new token set and
        goes on. Otherwise a new session begins. `previous`, the browser's older cookie, ends either way.
        """
        revived = await self._revive(user, revive, previous) if revive else None
        if revived is not None:
            session, secret = revived
            self._audit.write("sign-in", outcome="revived", user_id=session.user_id, session_id=session.id)
        else:
            session, secret = await self._create(user, CredentialKind.COOKIE)
            self._audit.write("sign-in", outcome="success", user_id=session.user_id, session_id=session.id)
        if previous is not None:
            older = await self._store.find_by_credential(previous.digest())
            if older is not None:
                await self._end_credential(older.id, previous.digest(), reason="replaced by a new sign-in")
        return session, secret

    async def _revive(
        self, user: SignedInUser, session_id: str, previous: Secret | None
    ) -> tuple[Session, Secret] | None:
        now = self._clock.time()
        secret, credential = issue(CredentialKind.COOKIE, now=now, expires_at=now + self._options.session_ttl)
        replaced = previous.digest() if previous is not None else None
        session = await self.update(
            session_id, lambda stored: revived(stored, user, credential, replaced=replaced, now=now)
        )
        if session is None:
            return None
        idle_expires_at = now + self._options.idle_ttl
        await self._store.touch(session_id, now, idle_expires_at)
        return replace(session, last_seen=now, idle_expires_at=idle_expires_at), secret

    async def find_waiting(self, user_id: str) -> str | None:
        """The id of the user's session that needs its user and has grants; of several the one used last."""
        waiting = [
            session
            for session in await self._store.find_by_user(user_id)
            if session.state is SessionState.REAUTHORIZATION and session.grants
        ]
        return max(waiting, key=lambda session: session.last_seen).id if waiting else None

    async def find_by_reauth(self, value: Secret) -> Session | None:
        """The session that an authorization URL with this `reauth` value is bound to."""
        return await self._store.find_by_reauth(value.digest())

    async def issue_bearer(self, session_id: str, cookie: bytes, expires_in: float) -> tuple[Secret, float]:
        """A bearer for scripts, made with the cookie of that digest, with which it ends; and the seconds it is good
        for: at most what is left of the session. Raises `InvalidTokenError`."""
        now = self._clock.time()
        session = await self.find(session_id)
        if session is None:
            raise InvalidTokenError(reason="the session has ended")
        expires_at = min(now + expires_in, session.expires_at)
        secret, bearer = issue(CredentialKind.BEARER, now=now, expires_at=expires_at, parent=cookie)
        if await self.update(session_id, lambda stored: with_bearer(stored, bearer, now=now)) is None:
            raise InvalidTokenError(reason="the cookie ended while a bearer was made with it")
        return secret, expires_at - now

    # -- the end ---------------------------------------------------------------------------------------------------

    async def sign_out(self, authenticated: Authenticated) -> None:
        """End the credential, the bearers made with it and their streams; the session ends with its last one."""
        session = authenticated.session
        await self._end_credential(session.id, authenticated.credential.digest, reason="sign-out")
        self._audit.write("sign-out", outcome="success", user_id=session.user_id, session_id=session.id)

    async def _end_credential(self, session_id: str, digest: bytes, *, reason: str) -> None:
        now = self._clock.time()
        last = False

        def change(stored: Session) -> Session | None:
            nonlocal last
            changed = without_credential(stored, digest, now=now)
            last = changed is not None and not changed.credentials
            return None if last else changed

        await self.update(session_id, change)
        if last:
            await self.revoke(session_id, reason=reason)

    async def revoke(self, session_id: str, *, reason: str = "revoked") -> bool:
        """End the session, its credentials and its streams in every process; its refresh token is revoked at the
        provider in the background. False when there was no such session."""
        session = await self._store.find(session_id)
        deleted = await self._store.delete(session_id)
        self.watch.ended(session_id, "revoked")
        if session is not None:
            self.revoke_upstream(session)
        if session is not None or deleted:  # what cannot be read ends, too
            user_id = session.user_id if session is not None else ""
            self._audit.write("revocation", outcome="success", user_id=user_id, session_id=session_id, reason=reason)
        return deleted

    async def revoke_user(self, user_id: str) -> int:
        """End all of the user's sessions; how many there were."""
        sessions = await self._store.find_by_user(user_id)
        ended = await self._store.delete_by_user(user_id)
        for session_id in ended:
            self.watch.ended(session_id, "revoked")
        for session in sessions:
            self.revoke_upstream(session)
        self._audit.write("revocation", outcome="success", user_id=user_id, reason=f"all {len(ended)} sessions")
        return len(ended)

    async def end_at_provider(self, issuer: str, *, subject: str | None, sid: str | None) -> int:
        """The provider has signed its user out: end the sessions begun in its session `sid`, and those of `subject`
        that do not say in which one they began; without `sid` all of `subject`; how many there were."""
        concerned = []
        if sid is not None:
            # Another provider may use the same names, and a subject beside a session must be that session's.
            concerned += [
                session
                for session in await self._store.find_by_sid(sid)
                if session.subject is not None
                and session.subject[0] == issuer
                and subject in (None, session.subject[1])
            ]
        if subject is not None:
            of_user = await self._store.find_by_subject(issuer, subject)
            concerned += [session for session in of_user if sid is None or session.sid is None]
        return sum([await self.revoke(one.id, reason="signed out at the provider") for one in concerned])

    async def revoke_own(self, user_id: str, session_id: str) -> None:
        """End one of the user's sessions. Raises `NotFoundError` for anybody else's."""
        session = await self._store.find(session_id)
        if session is None or session.user_id != user_id:
            raise NotFoundError()
        await self.revoke(session_id, reason="ended by its user")

    async def end_grant(self, session_id: str, grant_id: str, *, reason: str) -> bool:
        """End one grant with its tokens and streams; the session ends with it where nothing else holds it. False when
        there was no such grant."""
        now = self._clock.time()
        session = await self.update(session_id, lambda stored: without_grant(stored, grant_id, now=now))
        if session is None:
            return False
        self._audit.write(
            "revocation",
            outcome="success",
            user_id=session.user_id,
            session_id=session_id,
            reason=f"grant {grant_id}: {reason}",
        )
        if not session.credentials:
            await self.revoke(session_id, reason=reason)
        return True

    async def revoke_client(self, client_id: str) -> int:
        """End every grant of a client, whoever's it is, say because it has turned out to be malicious; how many there
        were. Its registration stays: without a user's consent it opens nothing."""
        ended = 0
        async for session in self._store.find_by_client(client_id):
            for grant in session.grants:
                if grant.client_id == client_id:
                    ended += await self.end_grant(session.id, grant.id, reason="its client was revoked")
        return ended

    async def end_own_grant(self, user_id: str, session_id: str, grant_id: str) -> None:
        """End one of the user's grants. Raises `NotFoundError` for anybody else's."""
        session = await self._store.find(session_id)
        if session is None or session.user_id != user_id:
            raise NotFoundError()
        if not await self.end_grant(session_id, grant_id, reason="ended by its user"):
            raise NotFoundError()

    def known_at(self) -> int:
        """What a request that was authenticated just now keeps for `look_again`."""
        return self._cache.begin_fill()

    def look_again(self, session: Session, known_at: int) -> None:
        """Read the session in the background, and tell what became of it, unless it is known to be as it was."""
        if not self._cache.is_newest(session, known_at):
            self.watch.read_again(session.id)

    def is_ended(self, session_id: str) -> bool:
        """True for 10 s after the end of a session, however it was learnt of."""
        return self._cache.is_ended(session_id)

    async def find(self, session_id: str) -> Session | None:
        """The session as stored, or None when it has ended."""
        return await self._store.find(session_id)

    async def sessions_of(self, user_id: str) -> list[Session]:
        """The user's sessions, oldest first."""
        return await self._store.find_by_user(user_id)

    # -- shared ----------------------------------------------------------------------------------------------------

    async def update(self, session_id: str, change: Callable[[Session], Session | None]) -> Session | None:
        """Read, change, write; again when somebody else wrote. None: no such session, or `change` declined."""
        return await self._writes.update(session_id, change)

    async def update_read(self, session: Session, change: Callable[[Session], Session | None]) -> Session | None:
        """The same for a session that was read or written just now: it is read only where somebody else wrote since."""
        return await self._writes.update_read(session, change)

    async def written(self, write: Awaitable[T]) -> T:
        """The result of a write to the store, which is timed."""
        return await self._writes.written(write)

    def revoke_upstream(self, session: Session) -> None:
        """End the token set of a session that has ended at the provider too, in the background."""
        self._upstream.begin(session)
