"""A replica set of three whose primary is killed, stepped down, frozen, and cut off: what do the streams notice?"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from tests.parts import mongod, provider
from tests.parts.failover import PrimaryFaults
from tests.parts.sample_server import SampleServer, sample_servers
from tests.processes.session_history import SessionHistory
from tests.soak.findings import Findings
from tests.soak.population import Population
from tests.soak.soak import Soak

ACCESS_TTL = 10
USERS = 20
STREAMS = 2
QUIET = 5.0  # between two faults
PATIENCE = 60.0
DATABASE = "soak"
SETTLED = 40.0  # seconds after the last fault: a lease that was lost track of has been judged by then


@dataclass(frozen=True)
class Scene:
    """Two servers on a replica set of three, people with streams, and the faults."""

    servers: list[SampleServer]
    judge: provider.Provider
    history: SessionHistory
    population: Population
    faults: PrimaryFaults


@asynccontextmanager
async def scene(soak: Soak, *, users: int, streams: int, frozen: float = 20.0) -> AsyncIterator[Scene]:
    """A replica set with a network of its own, which is this process: it must not have much else to do."""
    async with mongod.proxied_replica_set(3) as (replicas, proxies):
        faults = PrimaryFaults(replicas, proxies, frozen=frozen)
        async with stage(soak, replicas, faults, users=users, streams=streams, access_ttl=ACCESS_TTL) as found:
            yield found


@asynccontextmanager
async def stage(
    soak: Soak, replicas: mongod.ReplicaSet, faults: PrimaryFaults, *, users: int, streams: int, access_ttl: int
) -> AsyncIterator[Scene]:
    """All of it started, everybody's streams open."""
    async with AsyncExitStack() as stack:
        judge = stack.enter_context(provider.running(access_ttl=access_ttl))
        servers = await stack.enter_async_context(sample_servers(judge, [replicas.uri] * 2, DATABASE))
        history = await stack.enter_async_context(SessionHistory(replicas.uri, DATABASE))
        population = Population(soak, servers, history, users=users, streams=streams)
        await stack.enter_async_context(population)
        yield Scene(servers, judge, history, population, faults)


async def run(soak: Soak) -> Findings:
    """Each kind of fault in turn, in an order by chance."""
    findings = Findings(scenario=soak.scenario)
    async with scene(soak, users=USERS, streams=STREAMS) as found:
        worst: dict[str, float] = {}
        counts: Counter[str] = Counter()
        names = sorted(found.faults.all)
        soak.begin()
        while not soak.over:
            if sum(counts.values()) % len(names) == 0:
                soak.random.shuffle(names)
            name = names[sum(counts.values()) % len(names)]
            soak.tell(f"{name}; {found.population.open_streams} streams, {len(findings.recoveries)} faults")
            async with found.faults.all[name]():
                recovery = await found.population.recovered(timeout=PATIENCE)
            findings.must(recovery is not None, f"{name}: not recovered within {PATIENCE:.0f} s")
            findings.recoveries.append(PATIENCE if recovery is None else recovery)
            counts[name] += 1
            worst[name] = max(worst.get(name, 0.0), findings.recoveries[-1])
            await asyncio.sleep(QUIET)
        await asyncio.sleep(SETTLED)
        await found.population.finish(findings)
        await judge(found, findings)
    findings.notes.append(
        "faults, with the worst time to recovery: "
        + ", ".join(f"{name} {count} ({worst[name]:.1f} s)" for name, count in sorted(counts.items()))
    )
    return findings


async def judge(found: Scene, findings: Findings) -> None:
    """However often the primary changes, nobody is signed out, no stream ends, no token is spent twice."""
    stats = await found.judge.stats()
    reuses, reattempts = sum(stats.reuses.values()), sum(found.history.reattempts.values())
    findings.doubles["outcome known"] = max(0, reuses - reattempts)
    findings.must(reuses <= reattempts, f"{reuses} tokens were presented twice, {reattempts} by the rule")
    findings.must(not found.history.lost, f"sessions lost: {found.history.lost}")
    findings.must(not found.population.lost_connections["cut"], "streams ended without a word")
    findings.must(not findings.streams_closed, f"streams closed: {findings.streams_closed}")
