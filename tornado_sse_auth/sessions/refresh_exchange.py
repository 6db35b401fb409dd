"""What is done under a lease: spend the refresh token, and write down what became of it."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

from ..audit import AuditLog
from ..clock import Clock
from ..errors import (
    InvalidTokenError,
    ProviderUnavailableError,
    ReauthorizationRequiredError,
)
from ..identity import RefreshState, Secret, Session, SessionState, TokenSet
from ..metrics import Metrics
from ..oauth import (
    ClientRejected,
    OAuthProvider,
    RefreshRejected,
    Spent,
    TokenResponse,
    TransientFailure,
)
from ..stores.base import Lease, SessionStore
from .breaker import ProviderBreaker
from .lease import HeldLease, LeaseBusy, unsent
from .manager import SessionManager
from .session_writes import until_written

__all__ = [
    "ASSUMED_LIFETIME",
    "MAX_PRESENTATIONS",
    "RefreshCondition",
    "RefreshExchange",
    "RefreshPostponed",
]

_log = logging.getLogger(__name__)

ASSUMED_LIFETIME = 600.0  # of an access token whose answer names no `expires_in`
LONGEST_BACKOFF = 30.0
MISCONFIGURED_PAUSE = 60.0
MAX_PRESENTATIONS = 2


class RefreshPostponed(Exception):  # noqa: N818 - not an error: a date
    """No attempt before `until` (epoch seconds). `failure` is the class of what went wrong: `transient`, `client` (the
    provider does not accept this server), or None where nothing did."""

    def __init__(self, until: float, reason: str, *, failure: Literal["transient", "client"] | None = None) -> None:
        super().__init__(reason)
        self.until = until
        self.failure = failure


@dataclass(slots=True)
class RefreshCondition:
    """For health: since when (epoch seconds) the provider refuses us as a client, and the attempts that failed in a
    row over all sessions."""

    client_rejected_since: float | None = None
    failures_in_a_row: int = 0
    last_success: float | None = None
    unsaved: set[str] = field(default_factory=set)


class RefreshExchange:
    """Sends refreshes, one per lease, and stores their outcomes until the store has acknowledged them."""

    def __init__(
        self,
        store: SessionStore,
        provider: OAuthProvider,
        sessions: SessionManager,
        *,
        metrics: Metrics,
        clock: Clock,
        audit: AuditLog,
    ) -> None:
        self._store = store
        self._provider = provider
        self._sessions = sessions
        self._metrics = metrics
        self._clock = clock
        self._audit = audit
        self._breaker = ProviderBreaker()
        self.condition = RefreshCondition()

    def pause(self) -> float:
        """Seconds until the provider may be asked again."""
        return self._breaker.wait(self._clock.monotonic())

    # -- sending ---------------------------------------------------------------------------------------------------

    async def send(self, held: HeldLease) -> TokenResponse | Session:
        """The provider's answer, or the session when somebody else has won meanwhile. Raises `RefreshPostponed`,
        `ReauthorizationRequiredError`, `InvalidTokenError`, `LeaseBusy`."""
        async with held:
            if pause := self.pause():  # another call has failed since the lease was asked for
                await self._give_back(held.lease)
                raise RefreshPostponed(self._clock.time() + pause, "the provider is paused", failure="transient")
            return await self._send(held)

    async def _send(self, held: HeldLease) -> TokenResponse | Session:
        lease = held.lease
        assert lease.session.token_set is not None  # noqa: S101 - the lease says so
        assert lease.session.token_set.refresh_token is not None  # noqa: S101
        self._breaker.begin()
        try:
            if lease.reattempt:
                await self._check_provider()
            answer = await self._provider.refresh(
                lease.session.token_set.refresh_token, before_sending=lambda: self._before_sending(held)
            )
        except LeaseBusy:
            self._breaker.abandoned()
            await self._give_back(lease)
            raise
        except RefreshRejected as rejected:
            self._breaker.answered(self._clock.monotonic())
            return await self._rejected(lease, str(rejected))
        except ClientRejected as rejected:
            self._breaker.answered(self._clock.monotonic())
            raise await self._misconfigured(lease, str(rejected)) from rejected
        except TransientFailure as failure:
            self._breaker.failed(self._clock.monotonic(), failure.retry_after)
            raise await self._failed(lease, failure) from failure
        except BaseException:
            self._breaker.abandoned()
            raise
        self._breaker.answered(self._clock.monotonic())
        self.condition.client_rejected_since = None
        self.condition.failures_in_a_row = 0
        self.condition.last_success = self._clock.time()
        self._metrics.increment("token.refresh.success")
        return answer

    async def _check_provider(self) -> None:
        """The one re-presentation is too precious for a provider that does not answer at all."""
        try:
            await self._provider.check()
        except ProviderUnavailableError as error:
            raise TransientFailure(f"before a re-presentation: {error.reason}", spent=Spent.UNSPENT) from error

    def _before_sending(self, held: HeldLease) -> None:
        held.before_sending()
        if held.lease.reattempt:
            session = held.lease.session
            self._metrics.increment("token.refresh.reattempt")
            self._audit.write("refresh", outcome="reattempt", user_id=session.user_id, session_id=session.id)

    async def _give_back(self, lease: Lease) -> None:
        session = lease.session
        await until_written(
            lambda: self._sessions.written(self._store.release_lease(session.id, lease.fence, unsent(session.refresh)))
        )

    # -- after a failure -------------------------------------------------------------------------------------------

    async def _rejected(self, lease: Lease, reason: str) -> Session:
        """`invalid_grant`: the row is read once more, since another process may have won."""
        row = await until_written(lambda: self._store.find(lease.session.id))
        if row is None:
            raise InvalidTokenError(reason="the session is gone")
        if row.state is SessionState.ACTIVE and row.token_version != lease.session.token_version:
            self._metrics.increment("token.refresh.skipped")
            return row
        if row.refresh.fence != lease.fence:
            raise LeaseBusy  # we came late: whoever holds the lease now may have what we were refused
        if lease.reattempt:
            self._metrics.increment("token.refresh.lost")
        _log.warning("the provider has refused the refresh token of session %s: %s", row.id, reason)
        raise await self.give_up(row, "refresh_rejected")

    async def give_up(self, session: Session, reason: str) -> ReauthorizationRequiredError:
        """Only the user can help now: store that, and return the error to raise."""
        wanted = replace(session, reauth=Secret.random(), reauth_reason=reason)
        version = session.token_version
        if session.state is SessionState.ACTIVE:
            row = await until_written(
                lambda: self._sessions.written(self._store.require_reauthorization(wanted, spent_version=version))
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
        return ReauthorizationRequiredError(reason=reason)

    async def _misconfigured(self, lease: Lease, reason: str) -> Exception:
        """The provider refuses *us*: nobody is signed out for that, an operator must mend it."""
        now = self._clock.time()
        if self.condition.client_rejected_since is None:
            self.condition.client_rejected_since = now
        _log.error("the provider refuses this server as a client: %s. Check client id and secret", reason)
        until = now + MISCONFIGURED_PAUSE
        return await self._postpone(lease, Spent.UNSPENT, until, f"client refused: {reason}", "client")

    async def _failed(self, lease: Lease, failure: TransientFailure) -> Exception:
        backoff = min(LONGEST_BACKOFF, 2.0 ** min(lease.session.refresh.failures, 10)) * random.uniform(0.5, 1.0)  # noqa: S311
        until = self._clock.time() + max(backoff, failure.retry_after or 0.0)
        return await self._postpone(lease, failure.spent, until, failure.reason, "transient")

    async def _postpone(
        self, lease: Lease, spent: Spent, until: float, reason: str, failure: Literal["transient", "client"]
    ) -> Exception:
        session = lease.session
        before = session.refresh
        presented = before.presented if spent is Spent.UNKNOWN else before.presented - 1
        _log.warning("refresh of session %s failed for now (%s): %s", session.id, spent.name.lower(), reason)
        self._metrics.increment("token.refresh.transient")
        self.condition.failures_in_a_row += 1
        self._audit.write("refresh", outcome="transient", user_id=session.user_id, session_id=session.id, reason=reason)
        if presented >= MAX_PRESENTATIONS:
            return await self.give_up(session, "refresh_outcome_unknown")
        state = RefreshState(
            fence=lease.fence,
            intent=before.intent if presented else None,
            presented=presented,
            not_before=until,
            failures=before.failures + 1,
        )
        await until_written(lambda: self._sessions.written(self._store.release_lease(session.id, lease.fence, state)))
        return RefreshPostponed(until, reason, failure=failure)

    # -- after a success -------------------------------------------------------------------------------------------

    async def keep(self, held: HeldLease, answer: TokenResponse, unsaved: Callable[[Session], None]) -> Session:
        """Store the new token set, before anything else can go wrong with it, and return the session with it.

        While the store is away, `unsaved` is given the session as it will be, once, for whoever waits. Raises
        `InvalidTokenError`, `ReauthorizationRequiredError` where something newer stands in the store.
        """
        spent = held.lease.session
        old = spent.token_set
        assert old is not None  # noqa: S101 - it was just spent
        assert held.sent_at is not None  # noqa: S101
        # Not from when the answer was read: this process may have stood still with it in the socket.
        began = held.sent_at
        lifetime = answer.expires_in if answer.expires_in is not None else old.lifetime or ASSUMED_LIFETIME
        token_set = TokenSet(
            access_token=answer.access_token,
            refresh_token=answer.refresh_token or old.refresh_token,
            issued_at=began,
            expires_at=began + lifetime,
            scopes=old.scopes if answer.scopes is None else answer.scopes,
        )
        wanted = replace(spent, token_set=token_set)
        lost = old.scopes - token_set.scopes

        def on_delay() -> None:
            if spent.id not in self.condition.unsaved:
                self.condition.unsaved.add(spent.id)
                unsaved(
                    replace(
                        wanted,
                        scopes=spent.scopes - lost,
                        token_version=spent.token_version + 1,
                        refresh=RefreshState(fence=held.lease.fence),
                    )
                )

        try:
            saved = await until_written(
                lambda: self._sessions.written(
                    self._store.save_refresh(wanted, spent_version=spent.token_version, lost_scopes=lost)
                ),
                on_delay,
            )
        finally:
            self.condition.unsaved.discard(spent.id)
        if saved is None:
            return await self._overtaken(wanted)
        self._audit.write("refresh", outcome="success", user_id=saved.user_id, session_id=saved.id)
        self._sessions.watch.changed(saved)
        return saved

    async def _overtaken(self, unsaved: Session) -> Session:
        row = await until_written(lambda: self._store.find(unsaved.id))
        if row is None:
            self._sessions.revoke_upstream(unsaved)
            raise InvalidTokenError(reason="the session is gone")
        if row.state is not SessionState.ACTIVE:
            raise ReauthorizationRequiredError(reason=row.reauth_reason)
        return row
