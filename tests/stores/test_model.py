"""Random sequences of everything that happens to a session's tokens, on every store, beside a model of the contract."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections import Counter
from collections.abc import Coroutine, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from tests.parts.mongod import ExternalMongo, ReplicaSet
from tests.stores.backends import PYMONGO, Backend, MemoryBackend, MongoBackend, make_session, now_clock
from tornado_sse_auth.identity import RefreshState, Secret, Session, SessionState, TokenSet
from tornado_sse_auth.sealing import Keyring
from tornado_sse_auth.stores import Lease, SessionStore

T = TypeVar("T")
PROCESSES = st.sampled_from(["a", "b", "c"])
LONG = 1000.0  # seconds of a lease; it ends when the test says so


@dataclass
class Place:
    """Where the sequences run: the stores are one database, with one key more in each."""

    backend: Backend
    stores: list[SessionStore]
    runner: asyncio.Runner

    def run(self, call: Coroutine[Any, Any, T]) -> T:
        """Hypothesis' machines are no coroutines."""
        return self.runner.run(call)


@pytest.fixture(params=["memory", PYMONGO])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    """Each kind of store."""
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        try:
            if request.param == "memory":
                memory = MemoryBackend(clock=now_clock(), stack=stack)
                yield Place(memory, [memory.store] * 3, runner)
            else:
                mongod: ReplicaSet | ExternalMongo = request.getfixturevalue("mongod")
                name = request.getfixturevalue("database_name")
                backend = MongoBackend(clock=now_clock(), stack=stack, uri=mongod.uri, name=name, driver=PYMONGO)
                keys: list[bytes] = []
                stores: list[SessionStore] = []
                for _ in range(3):
                    keys.insert(0, os.urandom(32))
                    backend.keyring = Keyring(keys)
                    stores.append(runner.run(backend.open()))
                yield Place(backend, stores, runner)
        finally:
            runner.run(stack.aclose())


def tokens() -> TokenSet:
    """What a provider gives: never the same twice."""
    return TokenSet(
        access_token=Secret.random(), refresh_token=Secret.random(), issued_at=1.0, expires_at=2.0, scopes=frozenset()
    )


class Tokens(RuleBasedStateMachine):
    """One session, three processes that refresh, and what the contract of `SessionStore` says must be."""

    place: Place
    steps = 0
    """That were run, over all sequences."""

    def __init__(self) -> None:
        super().__init__()
        clock, far = self.place.backend.clock, self.place.backend.clock.time() + 1e6
        session = make_session(clock, secrets.token_hex(16), credentials=(), expires_at=far, idle_expires_at=far)
        self.row: Session | None = replace(
            session, token_set=tokens(), token_version=1, state=SessionState.ACTIVE, refresh=RefreshState(), version=1
        )
        self.gone = ""
        self.running = False
        self.held: dict[str, Lease] = {}
        self.presented: Counter[Secret] = Counter()  # without what is known to have spent nothing
        self.ring = 0
        self.run(self.store.insert(self.row))

    def run(self, call: Coroutine[Any, Any, T]) -> T:
        return self.place.run(call)

    @property
    def store(self) -> SessionStore:
        return self.place.stores[self.ring]

    @property
    def session_id(self) -> str:
        return self.known.id

    @property
    def known(self) -> Session:
        assert self.row is not None
        return self.row

    def spent_by(self, lease: Lease) -> bool:
        """Whether what the lease's holder has spent is what stands on the row still."""
        return (
            self.row is not None
            and self.row.state is SessionState.ACTIVE
            and self.row.token_version == lease.session.token_version
        )

    def written(self, **changes: Any) -> None:
        """The row has a new version."""
        self.row = replace(self.known, version=self.known.version + 1, **changes)

    def concluded(self) -> RefreshState:
        self.running = False
        return RefreshState(fence=self.known.refresh.fence)

    @precondition(lambda self: self.row is not None)
    @rule(process=PROCESSES, watched=st.booleans())
    def take(self, process: str, watched: bool) -> None:
        """A process wants to spend the token; where it may, the token is on its way to the provider."""
        row, state = self.known, self.known.refresh
        assert row.token_set is not None
        token = row.token_set.refresh_token
        assert token is not None
        taken = self.run(
            self.store.take_lease(
                row.id,
                owner=process,
                token_version=row.token_version,
                intent=token.digest(),
                duration=LONG,
                seen=state.fence if watched else None,
            )
        )
        free = state.presented == 0 or (state.presented == 1 and (state.owner is None or watched))
        assert isinstance(taken, Lease) == (row.state is SessionState.ACTIVE and not self.running and free)
        if isinstance(taken, Lease):
            assert taken.reattempt == (state.presented == 1)
            assert taken.fence == state.fence + 1
            self.running = True
            self.held[process] = taken
            self.presented[token] += 1
            assert self.presented[token] <= 2
            self.row = replace(
                row,
                refresh=replace(
                    state, owner=process, fence=taken.fence, intent=token.digest(), presented=state.presented + 1
                ),
            )
        else:
            assert taken.expired != self.running

    @precondition(lambda self: self.row is not None and self.running)
    @rule()
    def time_passes(self) -> None:
        """Nobody renews the lease."""
        self.run(self.place.backend.end_lease(self.session_id))
        self.running = False

    @precondition(lambda self: self.held)
    @rule(data=st.data(), twice=st.booleans())
    def save(self, data: st.DataObject, twice: bool) -> None:
        """A holder, perhaps a late one, writes what it got; its first acknowledgement may be lost."""
        lease = self.held.pop(data.draw(st.sampled_from(sorted(self.held))))
        wanted = replace(lease.session, token_set=tokens())
        expected = self.spent_by(lease)
        for _ in range(2 if twice else 1):
            saved = self.run(self.store.save_refresh(wanted, spent_version=lease.session.token_version))
            assert (saved is not None) == expected
        if expected:
            self.written(
                token_set=wanted.token_set, token_version=self.known.token_version + 1, refresh=self.concluded()
            )

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def refused(self, data: st.DataObject) -> None:
        """A holder is told `invalid_grant`: only the user can help."""
        lease = self.held.pop(data.draw(st.sampled_from(sorted(self.held))))
        wanted = replace(lease.session, reauth=Secret.random(), reauth_reason="refresh_rejected")
        row = self.run(self.store.require_reauthorization(wanted, spent_version=lease.session.token_version))
        assert (row is not None) == self.spent_by(lease)
        if row is not None:
            self.written(
                state=SessionState.REAUTHORIZATION,
                reauth=wanted.reauth,
                reauth_reason=wanted.reauth_reason,
                refresh=self.concluded(),
            )

    @precondition(lambda self: self.held)
    @rule(data=st.data(), unknown=st.booleans())
    def give_back(self, data: st.DataObject, unknown: bool) -> None:
        """A holder failed for now, and knows or does not know whether the token was spent."""
        lease = self.held.pop(data.draw(st.sampled_from(sorted(self.held))))
        presented = lease.session.refresh.presented - (not unknown)
        state = RefreshState(fence=lease.fence, presented=presented, not_before=5.0, failures=1)
        self.run(self.store.release_lease(lease.session.id, lease.fence, state))
        token_set = lease.session.token_set
        assert token_set is not None
        assert token_set.refresh_token is not None
        if self.row is not None and self.row.refresh.fence == lease.fence and self.row.refresh.owner is not None:
            self.row = replace(self.row, refresh=state)
            self.running = False
            self.presented[token_set.refresh_token] -= not unknown

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def crash(self, data: st.DataObject) -> None:
        """A holder is gone, and what it got with it."""
        del self.held[data.draw(st.sampled_from(sorted(self.held)))]

    @precondition(lambda self: self.row is not None)
    @rule()
    def sign_in_again(self) -> None:
        """The user gives the session a token set from outside."""
        changed = replace(
            self.known,
            token_set=tokens(),
            token_version=self.known.token_version + 1,
            state=SessionState.ACTIVE,
            reauth=None,
            reauth_reason=None,
        )
        self.run(self.store.update(changed))
        refresh = self.concluded()
        self.row = replace(changed, version=changed.version + 1, refresh=refresh)

    @rule()
    def touch(self) -> None:
        """Somebody uses the session; one that has ended is not brought back."""
        now = self.place.backend.clock.time()
        session_id = self.gone if self.row is None else self.row.id
        self.run(self.store.touch(session_id, now, now + 2e6))
        if self.row is not None:
            self.row = replace(self.row, last_seen=now, idle_expires_at=now + 2e6)

    @precondition(lambda self: self.ring < 2)
    @rule()
    def rotate_key(self) -> None:
        """Every process has a new first key from now on."""
        self.ring += 1

    @precondition(lambda self: self.row is not None)
    @rule(expire=st.booleans())
    def end(self, expire: bool) -> None:
        """Revoked, or expired and not yet removed."""
        if expire:
            clock = self.place.backend.clock
            clock.advance(max(0.0, self.known.ends_at - clock.time()) + 1.0)
        else:
            assert self.run(self.store.delete(self.session_id))
        self.gone, self.row = self.session_id, None
        self.running = False

    @invariant()
    def the_row_is_as_the_contract_says(self) -> None:
        """Nothing lost, nothing revived, nothing older over something newer."""
        type(self).steps += 1
        if self.row is None:
            assert self.run(self.store.find(self.gone)) is None
            assert not self.run(self.store.delete(self.gone))
            return
        found = self.run(self.store.find(self.row.id))
        assert found is not None
        refresh = replace(found.refresh, until=0.0)
        if refresh.owner is None:
            refresh = replace(refresh, intent=None)
        expected = self.row.refresh if self.row.refresh.owner else replace(self.row.refresh, intent=None)
        assert replace(found, refresh=refresh) == replace(self.row, refresh=expected)


def test_every_sequence_keeps_the_contract(place: Place) -> None:
    """REL-32, REL-03, REL-05, SEC-59: leases, saves, refusals, crashes, sign-ins, key rotations, revocations in any
    order: a token is presented at most twice with an unknown outcome and never after a known one, a late result counts
    by what it spent, and what has ended stays ended."""
    machine = type("TokensHere", (Tokens,), {"place": place})
    assert issubclass(machine, Tokens)
    long = settings.default is not None and settings.default.max_examples > 1000
    run_state_machine_as_test(
        machine, settings=settings(max_examples=2000 if long else 25, stateful_step_count=30, deadline=None)
    )
    print(f"{machine.steps} steps")
    assert machine.steps > 100
