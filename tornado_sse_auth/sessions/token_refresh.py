"""Refresh the token set of ONE session: single flight, lease, exchange, write. On demand and on schedule use this."""

from __future__ import annotations

import asyncio
import logging
import random
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, NoReturn, TypeVar

from ..audit import AuditLog
from ..clock import Clock
from ..errors import (
    AuthError,
    InvalidTokenError,
    ProviderUnavailableError,
    ReauthorizationRequiredError,
    StoreUnavailableError,
)
from ..identity import RefreshState, Secret, Session, SessionState, TokenSet
from ..metrics import Metrics
from ..oauth import (
    ClientRejected,
    IdentityMapper,
    OAuthProvider,
    RefreshRejected,
    Spent,
    TokenResponse,
    TransientFailure,
)
from ..options import Options
from ..stores.base import Lease, LeaseRefused, SessionStore
from .breaker import ProviderBreaker
from .manager import SessionManager
from .slots import CallSlots

__all__ = ["ASSUMED_LIFETIME", "LEASE_LENGTH", "LeaseBusy", "RefreshPostponed", "TokenRefresher"]

_log = logging.getLogger(__name__)
T = TypeVar("T")

LEASE_LENGTH = 15.0
LEASE_RENEWAL = 5.0
ASSUMED_LIFETIME = 600.0  # of an access token whose answer names no `expires_in`
ENRICH_INTERVAL = 600.0
LONGEST_BACKOFF = 30.0
MISCONFIGURED_PAUSE = 60.0
MAX_PRESENTATIONS = 2


class LeaseBusy(Exception):  # noqa: N818 - not an error: somebody else is at it
    """Another process is refreshing this session, or has died while doing so: look again in a moment."""


class RefreshPostponed(Exception):  # noqa: N818 - not an error: a date
    """No attempt before `until` (epoch seconds)."""

    def __init__(self, until: float, reason: str) -> None:
        super().__init__(reason)
        self.until = until


@dataclass(slots=True, eq=False)
class _Flight:
    """One attempt that everybody waits for. `outcome` is known before the attempt's writes are through."""

    outcome: asyncio.Future[Session]
    urgent: bool
    task: asyncio.Task[None] | None = None


@dataclass(slots=True)
class _Watched:
    """An expired lease whose holder has not come back: its fence, and since when it was seen (monotonic)."""

    fence: int
    since: float


@dataclass(slots=True)
class RefreshCondition:
    """For health: since when (epoch seconds) the provider refuses us as a client, and the attempts that failed in a
    row over all sessions."""

    client_rejected_since: float | None = None
    failures_in_a_row: int = 0
    last_success: float | None = None
    unsaved: set[str] = field(default_factory=set)


class TokenRefresher:
    """Owner of every call that spends a refresh token. The rules are those of OAuth 2 rotation (RFC 6749, section 6;
    RFC 9700, section 4.14): a token is presented once, and once more only when the first outcome is unknown."""

    def __init__(
        self,
        store: SessionStore,
        provider: OAuthProvider,
        sessions: SessionManager,
        options: Options,
        *,
        identity_mapper: IdentityMapper,
        metrics: Metrics,
        clock: Clock,
        audit: AuditLog,
    ) -> None:
        self._store = store
        self._provider = provider
        self._sessions = sessions
        self._mapper = identity_mapper
        self._metrics = metrics
        self._clock = clock
        self._audit = audit
        self._owner = uuid.uuid4().hex
        self._slots = CallSlots(options.refresh_concurrency)
        self._breaker = ProviderBreaker()
        self._flights: dict[str, _Flight] = {}
        self._watched: dict[str, _Watched] = {}
        self.condition = RefreshCondition()

    async def close(self, grace: float) -> None:
        """Let the calls under way end and be written, for `grace` seconds at most. Twice is once."""
        tasks = [flight.task for flight in self._flights.values() if flight.task is not None]
        if not tasks:
            return
        _, late = await asyncio.wait(tasks, timeout=grace)
        for task in late:
            _log.error("%s was not over after %.1f s and is abandoned", task.get_name(), grace)
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)

    # -- for requests ----------------------------------------------------------------------------------------------

    async def fresh(self, session: Session, *, min_ttl: float) -> Session:
        """The session with an access token that is good for `min_ttl` seconds more, or half of its life where that is
        less; refreshes if need be, waiting at most the provider's `timeout`.

        While refreshing fails for now, a token that has not expired is still given. Raises
        `ReauthorizationRequiredError`, `ProviderUnavailableError`, `StoreUnavailableError`, `InvalidTokenError`.
        """
        deadline = self._clock.monotonic() + self._provider.timeout
        session = self._newest(session)
        while True:
            token_set = self._usable(session)
            left = token_set.expires_at - self._clock.time()
            if left >= min(min_ttl, token_set.lifetime / 2) and left > 0:
                return session
            if token_set.refresh_token is None and left > 0:
                return session
            try:
                async with asyncio.timeout(max(0.0, deadline - self._clock.monotonic())):
                    newer = await self.attempt(session.id, session.token_version, urgent=True)
                    if newer.token_version == session.token_version:
                        raise StoreUnavailableError(reason="the new token set is not stored yet")
                    session = newer
                    continue
            except LeaseBusy:
                if self._clock.monotonic() < deadline:
                    await asyncio.sleep(random.uniform(0.05, 0.2))  # noqa: S311
                    continue
                failure: Exception = ProviderUnavailableError(reason="another process's refresh takes too long")
            except TimeoutError:
                failure = ProviderUnavailableError(reason="the refresh takes longer than its caller waits")
            except RefreshPostponed as postponed:
                wait = max(1.0, postponed.until - self._clock.time())
                failure = ProviderUnavailableError(retry_after=wait, reason=str(postponed))
            except StoreUnavailableError as error:
                failure = error
            if token_set.expires_at > self._clock.time():
                return session
            raise failure

    def _newest(self, session: Session) -> Session:
        flight = self._flights.get(session.id)
        if flight is None or not flight.outcome.done() or flight.outcome.cancelled() or flight.outcome.exception():
            return session
        held = flight.outcome.result()
        return held if held.token_version > session.token_version else session

    def _usable(self, session: Session) -> TokenSet:
        if session.state is not SessionState.ACTIVE:
            raise ReauthorizationRequiredError(reason=session.reauth_reason)
        if session.token_set is None:
            raise ReauthorizationRequiredError(
                "This session holds no token of a provider.", reason="no token set in the session"
            )
        return session.token_set

    # -- one attempt -----------------------------------------------------------------------------------------------

    async def attempt(self, session_id: str, spent_version: int, *, urgent: bool = False) -> Session:
        """One attempt to replace the token set of version `spent_version`; joins the one under way. Returns the
        session with a newer token set, whoever got it.

        Cancelling a caller does not cancel the attempt. Raises `LeaseBusy`, `RefreshPostponed`,
        `ReauthorizationRequiredError`, `InvalidTokenError` (the session is gone), `StoreUnavailableError`.
        """
        flight = self._flights.get(session_id)
        if flight is None:
            flight = _Flight(asyncio.get_running_loop().create_future(), urgent)
            # Nobody may be waiting any more when an attempt fails; its failure is handled where it happens.
            flight.outcome.add_done_callback(lambda future: future.cancelled() or future.exception())
            self._flights[session_id] = flight
            flight.task = asyncio.create_task(
                self._run(session_id, spent_version, flight), name=f"refresh of session {session_id}"
            )
        elif urgent and not flight.urgent:
            flight.urgent = True
            self._slots.promote(session_id)
        return await asyncio.shield(flight.outcome)

    async def _run(self, session_id: str, spent_version: int, flight: _Flight) -> None:
        try:
            await self._slots.acquire(session_id, urgent=flight.urgent)
            try:
                taken = await self._take(session_id, spent_version)
                answer = taken if isinstance(taken, Session) else await self._send(taken)
            finally:
                self._slots.release()
            if isinstance(answer, Session):
                flight.outcome.set_result(answer)
            else:
                await self._keep(answer[0], answer[1], flight)
        except asyncio.CancelledError:
            flight.outcome.cancel()
            raise
        except Exception as error:
            if isinstance(error, StoreUnavailableError):
                self._watched.clear()  # the watch over a dead holder counts only while the store answers
            if flight.outcome.done():
                _log.exception("after the refresh of session %s", session_id)
            else:
                flight.outcome.set_exception(error)
        finally:
            self._flights.pop(session_id, None)

    async def _take(self, session_id: str, spent_version: int) -> Lease | Session:
        """The lease, or the session when there is nothing to send."""
        session = await self._store.find(session_id)
        if session is None:
            raise InvalidTokenError(reason="the session is gone")
        if session.state is SessionState.ACTIVE and session.token_version != spent_version:
            self._metrics.increment("token.refresh.skipped")
            return session
        token_set = self._usable(session)
        now = self._clock.time()
        if token_set.refresh_token is None:
            if token_set.expires_at > now:
                raise RefreshPostponed(token_set.expires_at, "there is no refresh token")
            await self._give_up(session, "token_expired")
        if session.refresh.not_before > now:
            raise RefreshPostponed(session.refresh.not_before, "waiting after a failure")
        pause = self._breaker.wait(self._clock.monotonic())
        if pause > 0:
            raise RefreshPostponed(now + pause, "the provider is paused")
        return await self._lease(session, token_set.refresh_token.digest())

    async def _lease(self, session: Session, intent: bytes) -> Lease | Session:
        watched = self._watched.get(session.id)
        seen = None
        if watched is not None and self._clock.monotonic() - watched.since >= LEASE_LENGTH:
            seen = watched.fence
        taken = await self._store.take_lease(
            session.id,
            owner=self._owner,
            token_version=session.token_version,
            intent=intent,
            duration=LEASE_LENGTH,
            seen=seen,
        )
        if isinstance(taken, Lease):
            self._watched.pop(session.id, None)
            return taken
        return await self._refused(session, taken)

    async def _refused(self, session: Session, refused: LeaseRefused) -> Session:
        row = refused.session
        if row is None:
            self._watched.pop(session.id, None)
            raise InvalidTokenError(reason="the session is gone")
        if row.state is not SessionState.ACTIVE or row.token_version != session.token_version:
            self._watched.pop(session.id, None)
            self._usable(row)
            self._metrics.increment("token.refresh.skipped")
            return row
        if refused.expired and row.refresh.presented >= MAX_PRESENTATIONS:
            await self._give_up(row, "refresh_outcome_unknown")
        if refused.expired and row.refresh.presented:
            watched = self._watched.get(row.id)
            if watched is None or watched.fence != row.refresh.fence:
                self._watched[row.id] = _Watched(row.refresh.fence, self._clock.monotonic())
        else:
            self._watched.pop(row.id, None)
        raise LeaseBusy

    # -- sending ---------------------------------------------------------------------------------------------------

    async def _send(self, lease: Lease) -> tuple[Lease, TokenResponse] | Session:
        session = lease.session
        assert session.token_set is not None and session.token_set.refresh_token is not None  # noqa: S101 - the lease says so
        renewal = asyncio.create_task(self._renew(lease), name=f"lease of session {session.id}")
        self._breaker.begin()
        started = self._clock.monotonic()
        try:
            if lease.reattempt:
                await self._before_reattempt(session)
            answer = await self._provider.refresh(session.token_set.refresh_token)
        except RefreshRejected as rejected:
            self._breaker.answered()
            return await self._rejected(lease, str(rejected))
        except ClientRejected as rejected:
            self._breaker.answered()
            await self._misconfigured(lease, str(rejected))
        except TransientFailure as failure:
            self._breaker.failed(self._clock.monotonic(), failure.retry_after)
            await self._failed(lease, failure)
        except BaseException:
            self._breaker.abandoned()
            raise
        finally:
            renewal.cancel()
        self._breaker.answered()
        self.condition.client_rejected_since = None
        self.condition.failures_in_a_row = 0
        self.condition.last_success = self._clock.time()
        self._metrics.timing("token.refresh", self._clock.monotonic() - started)
        self._metrics.increment("token.refresh.success")
        return lease, answer

    async def _before_reattempt(self, session: Session) -> None:
        """The one re-presentation is too precious for a provider that does not answer at all."""
        try:
            await self._provider.check()
        except ProviderUnavailableError as error:
            raise TransientFailure(f"before a re-presentation: {error.reason}", spent=Spent.UNSPENT) from error
        self._metrics.increment("token.refresh.reattempt")
        self._audit.write("refresh", outcome="reattempt", user_id=session.user_id, session_id=session.id)

    async def _renew(self, lease: Lease) -> None:
        while True:
            await asyncio.sleep(LEASE_RENEWAL)
            try:
                if not await self._store.renew_lease(lease.session.id, lease.fence, LEASE_LENGTH):
                    _log.warning("the lease of session %s was taken over", lease.session.id)
                    return
            except StoreUnavailableError as error:
                _log.warning("the lease of session %s was not renewed: %s", lease.session.id, error)

    # -- after a failure -------------------------------------------------------------------------------------------

    async def _rejected(self, lease: Lease, reason: str) -> Session:
        """`invalid_grant`: the row is read once more, since another process may have won."""
        row = await self._until_written(lambda: self._store.find(lease.session.id))
        if row is None:
            raise InvalidTokenError(reason="the session is gone")
        if row.state is SessionState.ACTIVE and row.token_version != lease.session.token_version:
            self._metrics.increment("token.refresh.skipped")
            return row
        if lease.reattempt:
            self._metrics.increment("token.refresh.lost")
        _log.warning("the provider has refused the refresh token of session %s: %s", row.id, reason)
        await self._give_up(row, "refresh_rejected")

    async def _give_up(self, session: Session, reason: str) -> NoReturn:
        """Only the user can help now."""
        wanted = replace(session, reauth=Secret.random(), reauth_reason=reason)
        version = session.token_version
        if session.state is SessionState.ACTIVE:
            row = await self._until_written(
                lambda: self._store.require_reauthorization(wanted, spent_version=version)
            )
            if row is not None:
                self._metrics.increment("token.refresh.permanent")
                self._audit.write(
                    "refresh",
                    outcome="reauthorization",
                    user_id=session.user_id,
                    session_id=session.id,
                    reason=reason,
                )
                self._sessions.watch.changed(row)
        raise ReauthorizationRequiredError(reason=reason)

    async def _misconfigured(self, lease: Lease, reason: str) -> NoReturn:
        """The provider refuses *us*: nobody is signed out for that, an operator must mend it."""
        now = self._clock.time()
        if self.condition.client_rejected_since is None:
            self.condition.client_rejected_since = now
        _log.error("the provider refuses this server as a client: %s. Check client id and secret", reason)
        await self._postpone(lease, Spent.UNSPENT, now + MISCONFIGURED_PAUSE, f"client refused: {reason}")

    async def _failed(self, lease: Lease, failure: TransientFailure) -> NoReturn:
        backoff = min(LONGEST_BACKOFF, 2.0 ** min(lease.session.refresh.failures, 10)) * random.uniform(0.5, 1.0)  # noqa: S311
        until = self._clock.time() + max(backoff, failure.retry_after or 0.0)
        await self._postpone(lease, failure.spent, until, failure.reason)

    async def _postpone(self, lease: Lease, spent: Spent, until: float, reason: str) -> NoReturn:
        session = lease.session
        before = session.refresh
        presented = before.presented if spent is Spent.UNKNOWN else before.presented - 1
        _log.warning("refresh of session %s failed for now (%s): %s", session.id, spent.name.lower(), reason)
        self._metrics.increment("token.refresh.transient")
        self.condition.failures_in_a_row += 1
        self._audit.write(
            "refresh", outcome="transient", user_id=session.user_id, session_id=session.id, reason=reason
        )
        if presented >= MAX_PRESENTATIONS:
            await self._give_up(session, "refresh_outcome_unknown")
        state = RefreshState(
            fence=lease.fence,
            intent=before.intent if presented else None,
            presented=presented,
            not_before=until,
            failures=before.failures + 1,
        )
        await self._until_written(lambda: self._store.release_lease(session.id, lease.fence, state))
        raise RefreshPostponed(until, reason)

    # -- after a success -------------------------------------------------------------------------------------------

    async def _keep(self, lease: Lease, answer: TokenResponse, flight: _Flight) -> None:
        """Store the new token set, before anything else can go wrong with it; whoever waits gets it even while the
        store is away."""
        spent = lease.session
        old = spent.token_set
        assert old is not None  # noqa: S101 - it was just spent
        now = self._clock.time()
        lifetime = answer.expires_in if answer.expires_in is not None else old.lifetime or ASSUMED_LIFETIME
        token_set = TokenSet(
            access_token=answer.access_token,
            refresh_token=answer.refresh_token or old.refresh_token,
            issued_at=now,
            expires_at=now + lifetime,
            scopes=old.scopes if answer.scopes is None else answer.scopes,
        )
        wanted = replace(spent, token_set=token_set)
        held = replace(wanted, token_version=spent.token_version + 1, refresh=RefreshState(fence=lease.fence))

        def serve_from_memory() -> None:
            self.condition.unsaved.add(spent.id)
            if not flight.outcome.done():
                flight.outcome.set_result(held)

        try:
            saved = await self._until_written(
                lambda: self._store.save_refresh(wanted, spent_version=spent.token_version), serve_from_memory
            )
        finally:
            self.condition.unsaved.discard(spent.id)
        if saved is None:
            await self._overtaken(spent, flight)
            return
        self._audit.write("refresh", outcome="success", user_id=saved.user_id, session_id=saved.id)
        self._sessions.watch.changed(saved)
        if not flight.outcome.done():
            flight.outcome.set_result(saved)
        await self._update_identity(saved, old, answer)

    async def _overtaken(self, spent: Session, flight: _Flight) -> None:
        row = await self._store.find(spent.id)
        if row is None:
            raise InvalidTokenError(reason="the session is gone")
        self._usable(row)
        if not flight.outcome.done():
            flight.outcome.set_result(row)

    async def _update_identity(self, saved: Session, old: TokenSet, answer: TokenResponse) -> None:
        """What a narrowed scope, the new ID token and userinfo say of the user. A failure keeps what was known."""
        lost = frozenset() if answer.scopes is None else old.scopes - answer.scopes
        subject = saved.claims.get("sub")
        learned: dict[str, Any] = {}
        enriched_at = saved.enriched_at
        if subject is not None and saved.claims.get("iss") == self._provider.issuer:
            if answer.id_token is not None:
                learned |= await self._learn("ID token", saved, self._provider.verify_id_token(answer.id_token, nonce=None))
                if learned.get("sub", subject) != subject:
                    await self._sessions.revoke(saved.id, reason="a refresh answered for another subject")
                    return
            if self._clock.time() - saved.enriched_at >= ENRICH_INTERVAL:
                enriched_at = self._clock.time()
                learned |= await self._learn(
                    "userinfo", saved, self._provider.userinfo(answer.access_token, subject=str(subject))
                )

        def change(session: Session) -> Session | None:
            changed = replace(session, scopes=session.scopes - lost, enriched_at=enriched_at)
            if learned:
                identity = self._mapper({**session.claims, **learned}, answer.scopes or old.scopes)
                changed = replace(
                    changed,
                    permissions=identity.permissions,
                    subscription=identity.subscription,
                    claims=MappingProxyType({**identity.claims, "iss": self._provider.issuer, "sub": subject}),
                )
            return changed if changed != session else None

        await self._until_written(lambda: self._sessions.update(saved.id, change))

    async def _learn(self, what: str, session: Session, question: Awaitable[Mapping[str, Any]]) -> Mapping[str, Any]:
        try:
            return await question
        except AuthError as error:
            _log.warning("%s of session %s was not taken over: %s", what, session.id, error)
            return {}

    async def _until_written(
        self, write: Callable[[], Awaitable[T]], on_delay: Callable[[], None] | None = None
    ) -> T:
        """Write again until the store has acknowledged it; the owner of the attempt bounds the wait."""
        pause = 0.1
        while True:
            try:
                return await write()
            except StoreUnavailableError as error:
                if on_delay is not None:
                    on_delay()
                _log.warning("the outcome of a refresh is not stored yet: %s", error)
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311
                pause = min(2.0, pause * 2)

