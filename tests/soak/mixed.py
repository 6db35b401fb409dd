"""Everything at once: two servers, a thousand streams, a replica set of three, and faults at random from the seed."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from tests.parts import mongod
from tests.parts.failover import PrimaryFaults
from tests.parts.process import ServerProcess
from tests.soak.crashes import LEASES, Crashes
from tests.soak.failover import PATIENCE, Scene, stage
from tests.soak.findings import Findings
from tests.soak.soak import Soak

ACCESS_TTL = 20
USERS = 100
STREAMS = 10
ELECTION = 4.0  # seconds: a primary that has to wait for a processor is not to lose its place
QUIET = (2.0, 6.0)  # between two faults
FROZEN_SERVER = (2.0, 20.0)  # beyond a lease, and not so long that others present what it holds
FROZEN_PROVIDER = (1.0, 8.0)
LEAVE = 0.3  # of all followers, at once
SPARE_DESCRIPTORS = 100
MEMORY = 1.25  # times the start's, when all streams were open
LAG = 50.0  # milliseconds


async def run(soak: Soak) -> Findings:
    """One fault after the other, each until all is well again."""
    findings = Findings(scenario=soak.scenario)
    with mongod.replica_set(3, election=ELECTION) as replicas:
        faults = PrimaryFaults(replicas)
        async with stage(soak, replicas, faults, users=USERS, streams=STREAMS, access_ttl=ACCESS_TTL) as scene:
            await _disasters(soak, scene, findings)
    return findings


async def _disasters(soak: Soak, scene: Scene, findings: Findings) -> None:
    disasters = Disasters(soak, scene)
    worst: dict[str, float] = {}
    counts: Counter[str] = Counter()
    soak.begin()
    while not soak.over:
        await asyncio.sleep(soak.random.uniform(*QUIET))
        name = soak.random.choice(sorted(disasters.all))
        soak.tell(f"{name}; {scene.population.open_streams} streams, {sum(counts.values())} faults")
        async with disasters.all[name]():
            recovery = await scene.population.recovered(timeout=PATIENCE)
        findings.must(recovery is not None, f"{name}: not recovered within {PATIENCE:.0f} s")
        findings.recoveries.append(PATIENCE if recovery is None else recovery)
        counts[name] += 1
        worst[name] = max(worst.get(name, 0.0), findings.recoveries[-1])
    await asyncio.sleep(LEASES)
    await scene.population.finish(findings)
    disasters.crashes.judge(findings, await scene.judge.stats())
    _judge(findings, disasters, scene)
    findings.notes.append(
        "faults, with the worst time to recovery: "
        + ", ".join(f"{name} {count} ({worst[name]:.1f} s)" for name, count in sorted(counts.items()))
    )


def _judge(findings: Findings, disasters: Disasters, scene: Scene) -> None:
    """Each figure that is promised."""
    without_cause = set(scene.history.lost_tokens) - disasters.crashes.orphaned
    lost = sum(findings.sessions_lost.values())
    findings.promise(not without_cause, f"{len(without_cause)} sessions signed out without cause, {lost} by a crash")
    closed = sum(findings.streams_closed.values())
    still = scene.population.open_streams
    cut = scene.population.lost_connections["cut"]
    findings.promise(closed == 0, f"{closed} streams closed by a server")
    findings.promise(cut <= disasters.cut_off, f"{cut} streams cut, {disasters.cut_off} were open where one was killed")
    findings.promise(still == USERS * STREAMS, f"{still} of {USERS * STREAMS} streams open at the end")
    known, unknown = findings.doubles["outcome known"], findings.doubles["outcome unknown"]
    findings.promise(known == 0, f"{known} tokens spent twice after a known outcome, {unknown} after an unknown one")
    lost_events, doubled = findings.events_lost, findings.events_doubled
    findings.promise(lost_events == doubled == 0, f"{lost_events} events lost, {doubled} doubled")
    # Of both: where one was killed late, the other one has all the streams.
    memory = [sum(usage[at].memory for usage in findings.usage.values()) >> 20 for at in (0, 1)]
    findings.promise(memory[1] <= MEMORY * memory[0], f"memory of both: {memory[0]} MiB at the start, {memory[1]} then")
    descriptors = [sum(usage[at].descriptors for usage in findings.usage.values()) for at in (0, 1)]
    findings.promise(
        descriptors[1] <= descriptors[0] + SPARE_DESCRIPTORS,
        f"descriptors of both: {descriptors[0]} at the start, {descriptors[1]} at the end",
    )
    lag = findings.loop_lag or 0.0
    findings.promise(lag < LAG, f"loop lag p99 {lag:.1f} ms, below {LAG:.0f} ms")


class Disasters:
    """What may happen; the body of each runs while it does, or right after it."""

    def __init__(self, soak: Soak, stage: Scene) -> None:
        self.crashes = Crashes(soak, stage.servers, stage.history)
        self.cut_off = 0
        """Streams of servers that were killed."""
        self._random = soak.random
        self._stage = stage
        self.all: dict[str, Callable[[], AbstractAsyncContextManager[None]]] = {
            **{f"primary {name}": fault for name, fault in stage.faults.all.items()},
            "server killed": self.server_killed,
            "server frozen": self.server_frozen,
            "provider frozen": self.provider_frozen,
            "followers leave": self.followers_leave,
        }

    @asynccontextmanager
    async def server_killed(self) -> AsyncIterator[None]:
        """SIGKILL, and a new start."""
        victim = self._random.choice(self._stage.servers)
        self.cut_off += sum(follower.port == victim.port for follower in self._stage.population.followers)
        await self.crashes.kill(victim)
        yield

    @asynccontextmanager
    async def server_frozen(self) -> AsyncIterator[None]:
        """SIGSTOP, for less or for more than a lease."""
        await self._freeze(self._random.choice(self._stage.servers), self._random.uniform(*FROZEN_SERVER))
        yield

    @asynccontextmanager
    async def provider_frozen(self) -> AsyncIterator[None]:
        """SIGSTOP, while refreshes are under way."""
        await self._freeze(self._stage.judge, self._random.uniform(*FROZEN_PROVIDER))
        yield

    @asynccontextmanager
    async def followers_leave(self) -> AsyncIterator[None]:
        """A third of all streams is hung up in one moment, and opened again."""
        followers = self._stage.population.followers
        for follower in self._random.sample(followers, int(LEAVE * len(followers))):
            follower.hang_up()
        yield

    async def _freeze(self, process: ServerProcess, seconds: float) -> None:
        with process.stopped():
            await asyncio.sleep(seconds)
