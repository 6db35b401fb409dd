"""Refresh the token set of ONE session: single flight, lease, exchange, write. On demand and on schedule use this."""

from __future__ import annotations

import asyncio
import logging
import random
import uuid
from dataclasses import dataclass

from ..audit import AuditLog
from ..clock import Clock
from ..errors import (
    InsufficientPermissionError,
    InvalidTokenError,
    ProviderUnavailableError,
    ReauthorizationRequiredError,
    StoreUnavailableError,
)
from ..identity import Session, SessionState, TokenSet
from ..metrics import Metrics
from ..oauth import IdentityMapper, OAuthProvider, TokenResponse
from ..options import Options
from ..stores.base import Lease, LeaseRefused, SessionStore
from .lease import LEASE_LENGTH, LEASE_RENEWAL, HeldLease, LeaseBusy, LeaseTerm, LeaseWatch, unsent
from .manager import SessionManager
from .refresh_exchange import MAX_PRESENTATIONS, RefreshExchange, RefreshPostponed
from .refreshed_identity import RefreshedIdentity
from .slots import CallSlots

__all__ = ["LeaseBusy", "RefreshPostponed", "TokenRefresher"]

_log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Flight:
    """One attempt that everybody waits for. `outcome` is known before the attempt's writes are through."""

    outcome: asyncio.Future[Session]
    urgent: bool
    task: asyncio.Task[None] | None = None


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
        self._sessions = sessions
        self._timeout = provider.timeout
        self._metrics = metrics
        self._clock = clock
        self._owner = uuid.uuid4().hex
        self._slots = CallSlots(options.refresh_concurrency)
        self._exchange = RefreshExchange(store, provider, sessions, metrics=metrics, clock=clock, audit=audit)
        self._identity = RefreshedIdentity(provider, sessions, identity_mapper=identity_mapper, clock=clock)
        self._flights: dict[str, _Flight] = {}
        self._watch = LeaseWatch(max(LEASE_RENEWAL, 3 * options.refresh_interval), clock)
        # Leases of ours that were perhaps taken, under which nothing was sent: the answer of the store was lost.
        self._unsent: set[str] = set()
        self._closed = False
        self.condition = self._exchange.condition

    @property
    def provider_pause(self) -> float:
        """Seconds for which the provider is left alone: at its own wish, or after failures in a row."""
        return self._exchange.pause()

    async def close(self, grace: float) -> None:
        """Let the calls under way end and be written, for `grace` seconds at most; begin none. Twice is once."""
        self._closed = True
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
        `ReauthorizationRequiredError`, `ProviderUnavailableError`, `StoreUnavailableError`, `InvalidTokenError`; and
        `InsufficientPermissionError` where a bearer of another authorization server opened the session.
        """
        if not session.stored:
            raise InsufficientPermissionError(
                "Whoever signs in elsewhere has no access token of this server's provider.",
                reason="no upstream token stands behind another authorization server's bearer",
            )
        deadline = self._clock.monotonic() + self._timeout
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
                if newer.token_version != session.token_version:
                    session = newer
                    continue
                failure: Exception = (
                    StoreUnavailableError(reason="the new token set is not stored yet")
                    if session.id in self.condition.unsaved
                    else ProviderUnavailableError(reason="the new token set was over when it came")
                )
            except LeaseBusy:
                if self._clock.monotonic() < deadline:
                    await asyncio.sleep(random.uniform(0.05, 0.2))  # noqa: S311
                    continue
                failure = ProviderUnavailableError(reason="another process's refresh takes too long")
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
            self._refuse_when_closed()
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

    def _refuse_when_closed(self) -> None:
        if self._closed:
            raise RefreshPostponed(self._clock.time() + 1.0, "the server is shutting down")

    async def _run(self, session_id: str, spent_version: int, flight: _Flight) -> None:
        try:
            await self._slots.acquire(session_id, urgent=flight.urgent)
            began = self._clock.monotonic()
            try:
                self._refuse_when_closed()
                taken = await self._take(session_id, spent_version)
                answer = taken if isinstance(taken, Session) else await self._exchange.send(taken)
            finally:
                self._slots.release()
            if isinstance(answer, Session):
                flight.outcome.set_result(answer)
            elif isinstance(taken, HeldLease):
                await self._finish(taken, answer, flight, began)
        except asyncio.CancelledError:
            if not flight.outcome.done():  # those who wait were not cancelled
                flight.outcome.set_exception(RefreshPostponed(self._clock.time() + 1.0, "the refresh was abandoned"))
            raise
        except Exception as error:
            if isinstance(error, StoreUnavailableError):
                self._watch.forget_all()
            if flight.outcome.done():
                _log.exception("after the refresh of session %s", session_id)
            else:
                flight.outcome.set_exception(error)
        finally:
            self._flights.pop(session_id, None)

    async def _finish(self, held: HeldLease, answer: TokenResponse, flight: _Flight, began: float) -> None:
        await self._identity.check(held.lease.session, answer)
        saved = await self._exchange.keep(held, answer, flight.outcome.set_result)
        if not flight.outcome.done():
            flight.outcome.set_result(saved)
        if saved.token_version == held.lease.session.token_version + 1:
            self._metrics.timing("token.refresh", self._clock.monotonic() - began)
            await self._identity.update(saved, answer)

    async def _take(self, session_id: str, spent_version: int) -> HeldLease | Session:
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
            raise await self._exchange.give_up(session, "token_expired")
        postponement = session.refresh.postponement(now)
        if postponement:
            raise RefreshPostponed(now + postponement, "waiting after a failure", failure="transient")
        pause = self._exchange.pause()
        if pause > 0:
            raise RefreshPostponed(now + pause, "the provider is paused", failure="transient")
        return await self._lease(session, token_set.refresh_token.digest())

    async def _lease(self, session: Session, intent: bytes) -> HeldLease | Session:
        term = LeaseTerm.from_now(self._clock)
        try:
            taken = await self._sessions.written(
                self._store.take_lease(
                    session.id,
                    owner=self._owner,
                    token_version=session.token_version,
                    intent=intent,
                    duration=LEASE_LENGTH,
                    seen=self._watch.seen(session.id),
                )
            )
        except StoreUnavailableError:
            self._unsent.add(session.id)
            raise
        if isinstance(taken, Lease):
            self._watch.forget(session.id)
            self._unsent.discard(session.id)
            return HeldLease(self._store, taken, term, self._clock)
        return await self._refused(session, taken)

    async def _refused(self, session: Session, refused: LeaseRefused) -> Session:
        unsent = session.id in self._unsent
        self._unsent.discard(session.id)
        row = refused.session
        if row is None:
            self._watch.forget(session.id)
            raise InvalidTokenError(reason="the session is gone")
        if row.state is not SessionState.ACTIVE or row.token_version != session.token_version:
            self._watch.forget(session.id)
            self._usable(row)
            self._metrics.increment("token.refresh.skipped")
            return row
        if unsent and row.refresh.owner == self._owner:
            await self._give_back(row)
        elif refused.expired and row.refresh.presented:
            if self._watch.look(row) and row.refresh.presented >= MAX_PRESENTATIONS:
                raise await self._exchange.give_up(row, "refresh_outcome_unknown")
        else:
            self._watch.forget(row.id)
        raise LeaseBusy

    async def _give_back(self, row: Session) -> None:
        """A lease that we did not know to be ours: the presentation it stands for never took place."""
        try:
            await self._store.release_lease(row.id, row.refresh.fence, unsent(row.refresh))
        except StoreUnavailableError:
            self._unsent.add(row.id)
            raise
