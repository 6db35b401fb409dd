"""REL-05, REL-11, REL-17: what becomes of the background refresh when the store is away after rotations, clocks jump, a
process stands still, or the provider is gone? By the loop of `virtual_time`, so that ten minutes take seconds."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from unittest.mock import patch

from tests.benchmarks.progress import progress
from tests.benchmarks.rows import Row
from tests.benchmarks.virtual_time import VirtualClock, VirtualLoop
from tornado_sse_auth import MemorySessionStore, OAuthProvider, Secret, SSEAuthenticationMiddleware, TokenSet
from tornado_sse_auth.errors import StoreUnavailableError
from tornado_sse_auth.identity import Session, SessionState
from tornado_sse_auth.oauth import RefreshRejected, Spent, TokenResponse, TransientFailure

LIFE = 300.0  # seconds of an access token
ANSWERS_AFTER = 0.05
SESSIONS = 1000
MANY = 10_000
MINUTE = 60.0
STORE_AWAY = 20.0
STANDS_STILL = GONE = 10 * MINUTE
HOUR = 3600.0


class Upstream(OAuthProvider):
    """A provider inside this process, which notes what a refresh token was presented for."""

    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__(issuer="http://127.0.0.1:9", client_id="app", client_secret="unused")
        self.away = False
        self.uses: Counter[str] = Counter()
        self.calls: list[float] = []
        self.late: list[float] = []
        """When the access tokens were over whose refreshes came after that."""
        self._loop = loop
        self._ends: dict[str, float] = {}
        self._numbers = itertools.count()

    def issue(self, age: float = 0.0) -> Secret:
        """A refresh token; the access token that belongs to it was given out `age` seconds ago."""
        token = f"refresh-{next(self._numbers)}"
        self._ends[token] = self._loop.time() - age + LIFE
        return Secret(token)

    async def refresh(
        self, refresh_token: Secret, *, before_sending: Callable[[], None] | None = None
    ) -> TokenResponse:
        """As the provider would answer."""
        if before_sending is not None:
            before_sending()
        self.calls.append(self._loop.time())
        await asyncio.sleep(ANSWERS_AFTER)
        if self.away:
            raise TransientFailure("gone", spent=Spent.UNSPENT)
        token = refresh_token.reveal()
        self.uses[token] += 1
        if self.uses[token] > 1:
            raise RefreshRejected("spent before")
        end = self._ends.pop(token)
        if self._loop.time() > end:
            self.late.append(end)
        return TokenResponse(access_token=Secret("access"), refresh_token=self.issue(), expires_in=LIFE)

    @property
    def fresh(self) -> int:
        """Sessions whose access token is good."""
        return sum(end > self._loop.time() for end in self._ends.values())

    @property
    def spent_twice(self) -> int:
        """Refresh tokens that were presented again after they had had their effect."""
        return sum(uses > 1 for uses in self.uses.values())

    def most_calls(self, after: float) -> int:
        """In one second."""
        return max(Counter(int(at) for at in self.calls if at >= after).values(), default=0)


class Store(MemorySessionStore):
    """Acknowledges no refresh while it is away; every other one is written all the same, as after `WTimeoutError`."""

    away = False

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__(clock=clock)
        self._unsaved: set[str] = set()

    async def save_refresh(
        self, session: Session, *, spent_version: int, lost_scopes: frozenset[str] = frozenset()
    ) -> Session | None:
        """As any store, when it is there."""
        if not self.away:
            saved = await super().save_refresh(session, spent_version=spent_version, lost_scopes=lost_scopes)
            self._unsaved.discard(session.id)
            return saved
        if session.id not in self._unsaved:
            self._unsaved.add(session.id)
            if len(self._unsaved) % 2:
                await super().save_refresh(session, spent_version=spent_version, lost_scopes=lost_scopes)
        raise StoreUnavailableError(reason="away, says the benchmark")

    @property
    def unsaved(self) -> int:
        """Sessions whose refresh is not acknowledged."""
        return len(self._unsaved)


class Process:
    """One process whose sessions all have open streams."""

    def __init__(self, loop: VirtualLoop) -> None:
        self.loop = loop
        self.clock = VirtualClock(loop)
        self.upstream = Upstream(loop)
        self.store = Store(self.clock)
        self.auth = SSEAuthenticationMiddleware(
            self.store, self.upstream, public_url="http://127.0.0.1:8000", clock=self.clock
        )
        self.ticks: list[float] = []
        self._ids: list[str] = []

    @asynccontextmanager
    async def refreshing(self, sessions: int, due_within: float) -> AsyncIterator[None]:
        """So many sessions are due within so many seconds, for the first time."""
        manager = self.auth.refresh_manager
        first_due = self.auth.options.refresh_fraction * LIFE
        for number in range(sessions):
            age = first_due - due_within * number / sessions
            now = self.clock.time()
            session, _ = await self.auth.sessions.create(
                user_id=f"user{number}",
                token_set=TokenSet(
                    access_token=Secret("access"),
                    refresh_token=self.upstream.issue(age),
                    issued_at=now - age,
                    expires_at=now - age + LIFE,
                ),
            )
            self._ids.append(session.id)
            manager.stream_opened(session)
        tick = manager.tick

        def noted() -> None:
            self.ticks.append(self.loop.time())
            tick()

        with patch.object(manager, "tick", noted):
            manager.start()
        yield
        await manager.close()
        if self.auth.refresher is not None:
            await self.auth.refresher.close(1.0)
        await self.auth.sessions.close()

    async def lost(self) -> int:
        """Sessions that need their user."""
        rows = [await self.store.find(session_id) for session_id in self._ids]
        return sum(row is None or row.state is not SessionState.ACTIVE for row in rows)


def refresh_faults() -> list[Row]:
    """The store, the clocks, the provider."""
    rows = _run(_store_away)
    rows += [row for fault in (-20.0, -HOUR, HOUR, None) for row in _run(_disturbed, fault)]
    return rows + _run(_provider_gone)


def _run(scenario: Callable[..., Coroutine[None, None, list[Row]]], *arguments: object) -> list[Row]:
    logging.disable()  # each failure of each session is a line
    try:
        loop = VirtualLoop()
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            return runner.run(scenario(Process(loop), *arguments))
    finally:
        logging.disable(logging.NOTSET)


async def _store_away(process: Process) -> list[Row]:
    """It goes when a tenth of the sessions is refreshed, and is back after 20 s."""
    progress("REL-05")
    store, upstream = process.store, process.upstream
    async with process.refreshing(SESSIONS, due_within=STORE_AWAY):
        await asyncio.sleep(STORE_AWAY / 10)
        store.away = True
        await asyncio.sleep(STORE_AWAY)
        store.away, unsaved, back = False, store.unsaved, process.loop.time()
        while store.unsaved:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        took = process.loop.time() - back
        await asyncio.sleep(MINUTE)
        name = f"REL-05, a store away for {STORE_AWAY:.0f} s after {unsaved} rotations"
        return [
            Row(name=f"{name}: until all are stored, when it is back", unit="s", value=took, reach=3),
            Row(name=f"{name}: sessions lost", unit="", value=await process.lost(), reach=0),
            Row(name=f"{name}: tokens spent twice", unit="", value=upstream.spent_twice, reach=0),
        ]


async def _disturbed(process: Process, jump: float | None) -> list[Row]:
    """All goes well for a while; then the wall clock jumps, or the process stands still."""
    async with process.refreshing(SESSIONS, due_within=LIFE / 2):
        await asyncio.sleep(LIFE)
        if jump is None:
            fault = f"a process stands still for {STANDS_STILL:.0f} s"
            process.loop.pass_time(STANDS_STILL)
        else:
            fault = f"the clock jumps by {jump:+.0f} s"
            process.clock.off += jump
        progress(f"REL-11, {fault}")
        since = process.loop.time()
        await asyncio.sleep(2 * LIFE)
        expected = 2 * LIFE / process.auth.options.refresh_interval
        ticks = sum(at > since for at in process.ticks)
        late = sum(end > since for end in process.upstream.late)
        most = process.upstream.most_calls(since)
        return [
            Row(name=f"REL-11, {fault}: ticks missed", unit="", value=max(0.0, expected - 1 - ticks), reach=0),
            Row(
                name=f"REL-11, {fault}: refreshes of {SESSIONS} sessions that came after the token's end",
                unit="",
                value=late,
                reach=0,
                detail=f"at most {most} calls in a second; {await process.lost()} sessions lost",
            ),
        ]


async def _provider_gone(process: Process) -> list[Row]:
    """It is gone when the first of them falls due, and comes back."""
    upstream = process.upstream
    upstream.away = True
    async with process.refreshing(MANY, due_within=MINUTE):
        for minute in range(int(GONE / MINUTE)):
            progress(f"REL-17, the provider is gone, minute {minute + 1}")
            await asyncio.sleep(MINUTE)
        trials, most_trials = len(upstream.calls), upstream.most_calls(0.0)
        upstream.away = False
        back = process.loop.time()
        while upstream.fresh < MANY:
            progress(f"REL-17, {upstream.fresh} sessions are fresh again")
            await asyncio.sleep(1.0)
        took = process.loop.time() - back
        name = f"REL-17, a provider gone for {GONE / MINUTE:.0f} minutes, {MANY} sessions due"
        return [
            Row(
                name=f"{name}: most calls in a second", unit="", value=most_trials, reach=15, detail=f"{trials} in all"
            ),
            Row(name=f"{name}: the same when it is back", unit="", value=upstream.most_calls(back), reach=250),
            Row(name=f"{name}: until all have a token again", unit="s", value=took, reach=300),
            Row(name=f"{name}: sessions lost", unit="", value=await process.lost(), reach=0),
            Row(name=f"{name}: tokens spent twice", unit="", value=upstream.spent_twice, reach=0),
        ]
