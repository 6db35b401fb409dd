"""Checks of the session store: does it acknowledge writes, does it find sessions, what does it run on, does it tell."""

from __future__ import annotations

from ..clock import Clock
from ..errors import StoreUnavailableError
from ..events import EventLog
from ..mongodb import ReplicaSetView
from ..observations import Observations
from ..sessions.manager import SessionManager
from ..stores import SessionStore
from .check import Check, milliseconds
from .report import Answer, Measurement, Status, Trouble

__all__ = ["ChangeFeedCheck", "LookupCheck", "ReplicaSetCheck", "StoreCheck"]

MAX_LAG = 20.0  # an idle replica set writes each ten seconds, and its members tell each other each two
MAX_FEED_DELAY = 2.0
CONNECTIONS_LEFT = 0.1

STORE_HURTS = "whoever signs in, and sessions that are not cached, get 503, while open streams go on"


class StoreCheck(Check):
    """A write that a majority acknowledges."""

    name = "store"
    component = "datastore"
    timer = "store.check"

    def __init__(self, store: SessionStore, observations: Observations, clock: Clock) -> None:
        self._store = store
        self._observations = observations
        self._clock = clock

    async def ask(self) -> Answer:
        """Times what it does as `store.check`."""
        started = self._clock.monotonic()
        try:
            await self._store.ping()
        finally:
            self._observations.timing(self.timer, self._clock.monotonic() - started)
        return Answer(measurements=_percentiles(self._observations, self.timer))

    def unanswered(self, reason: str) -> Answer:
        trouble = Trouble(
            what="the session store has not acknowledged a write",
            detail=reason,
            hurts=STORE_HURTS,
            remedy="look whether the MongoDB replica set has a primary and a majority, and at the network to it",
        )
        return Answer(status=Status.FAIL, trouble=trouble, measurements=_percentiles(self._observations, self.timer))


class LookupCheck(Check):
    """A look-up of a credential that nobody has, the way a request does it."""

    name = "lookup"
    component = "datastore"

    def __init__(self, sessions: SessionManager, observations: Observations) -> None:
        self._sessions = sessions
        self._observations = observations

    async def ask(self) -> Answer:
        await self._sessions.look_nobody_up()
        return Answer(measurements=_percentiles(self._observations, "store.lookup"))

    def unanswered(self, reason: str) -> Answer:
        trouble = Trouble(
            what="sessions have not been found in the store",
            detail=reason,
            hurts=STORE_HURTS,
            remedy="look at the MongoDB replica set, and whether this server may read its collections",
        )
        measurements = _percentiles(self._observations, "store.lookup")
        return Answer(status=Status.FAIL, trouble=trouble, measurements=measurements)


class ReplicaSetCheck(Check):
    """What the store runs on. The other checks say what works; this one says what is about not to."""

    name = "replica_set"
    component = "datastore"

    def __init__(self, store: SessionStore) -> None:
        self._store = store

    async def ask(self) -> Answer:
        view = await self._store.view_replica_set()
        if view is None:
            return Answer()
        trouble = _trouble_of(view)
        status = Status.PASS if trouble is None else Status.WARN
        return Answer(status=status, trouble=trouble, measurements=_measurements_of(view))

    def unanswered(self, reason: str) -> Answer:
        trouble = Trouble(
            what="no member of the MongoDB replica set has answered",
            detail=reason,
            hurts=STORE_HURTS,
            remedy="look at its members and the network to them",
        )
        return Answer(status=Status.WARN, trouble=trouble)


def _trouble_of(view: ReplicaSetView) -> Trouble | None:
    if not view.primary:
        return Trouble(
            what="the MongoDB replica set has had no primary",
            detail=f"members configured: {view.members}",
            hurts=STORE_HURTS,
            remedy="bring a majority of its members back, and see that they reach each other",
        )
    if view.healthy is not None and view.healthy < view.members:
        return Trouble(
            what="members of the MongoDB replica set have been missing",
            detail=f"{view.healthy} of {view.members} work",
            hurts="nobody yet, but the next loss may take the majority",
            remedy="bring them back",
        )
    lag = max(view.majority_lag, view.slowest_lag or 0.0)
    if lag > MAX_LAG:
        return Trouble(
            what="members of the MongoDB replica set have been behind",
            detail=f"by {lag:.0f} s",
            hurts="sign-ins and refreshes wait for a majority, and a change of primary takes longer",
            remedy="look at the load and the disks of the slower members",
        )
    if view.connections is not None and view.connections_left is not None:
        whole = view.connections + view.connections_left
        if view.connections_left < CONNECTIONS_LEFT * whole:
            return Trouble(
                what="the MongoDB server has had few connections left",
                detail=f"{view.connections_left} of {whole}",
                hurts="processes that start, or grow busy, get 503",
                remedy="raise its limit of open files, or use smaller pools",
            )
    return None


def _measurements_of(view: ReplicaSetView) -> tuple[Measurement, ...]:
    all_of_them = (
        ("primary", "seen" if view.primary else "none", ""),
        ("members", view.members, ""),
        ("membersWorking", view.healthy, ""),
        ("majorityLag", round(view.majority_lag, 1), "s"),
        ("slowestLag", view.slowest_lag, "s"),
        ("connections", view.connections, ""),
        ("connectionsLeft", view.connections_left, ""),
    )
    return tuple(Measurement(name, value, unit) for name, value, unit in all_of_them if value is not None)


class ChangeFeedCheck(Check):
    """Whether changes and events of other processes arrive, and how late."""

    name = "change_feed"
    component = "datastore"

    def __init__(self, store: SessionStore, events: EventLog) -> None:
        self._sources = (store, events)

    async def ask(self) -> Answer:
        if not all(source.feed_alive for source in self._sources):
            raise StoreUnavailableError(reason="the server has not spoken for 5 s")
        delay = max((source.feed_delay or 0.0 for source in self._sources), default=0.0)
        measurements = (milliseconds("delay", delay),)
        if delay <= MAX_FEED_DELAY:
            return Answer(measurements=measurements)
        trouble = Trouble(
            what="the store's changes have arrived late",
            detail=f"the newest by {delay:.1f} s",
            hurts="what is revoked or published in another process reaches its streams late",
            remedy="look at the replica set's lag, and compare the machines' clocks",
        )
        return Answer(status=Status.WARN, trouble=trouble, measurements=measurements)

    def unanswered(self, reason: str) -> Answer:
        trouble = Trouble(
            what="the store's change feed has been silent",
            detail=reason,
            hurts="what is revoked elsewhere reaches open streams only after some seconds, and its events wait",
            remedy="look at the MongoDB replica set and its oplog",
        )
        return Answer(status=Status.WARN, trouble=trouble)


def _percentiles(observations: Observations, timer: str) -> tuple[Measurement, ...]:
    """Over the last five minutes."""
    seen = observations.timing_of(timer)
    if not seen.count:
        return ()
    return (milliseconds("p50", seen.p50), milliseconds("p95", seen.p95), milliseconds("p99", seen.p99))
