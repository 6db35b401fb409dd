"""A random process is killed every few seconds, with tokens of ten seconds: who is lost, and was it the crash?"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress

from tests.parts import mongod, provider
from tests.parts.sample_server import SampleServer, sample_servers
from tests.processes.session_history import SessionHistory
from tests.soak.findings import Findings
from tests.soak.population import Population
from tests.soak.soak import Soak

ACCESS_TTL = 10
EARLIEST = 0.85 - 0.02  # of a token's life, when it may be refreshed, and a tick
USERS = 80
KILL_EVERY = (3.0, 8.0)
DATABASE = "soak"
SETTLING = 3.0  # after this, a presentation that is still open was the killed process's
LEASES = 45.0  # a lease, the watch over it, and the second presentation


async def two_processes(soak: Soak) -> Findings:
    """Two processes, two streams a user."""
    return await _run(soak, 2, Crashes.one)


async def four_processes(soak: Soak) -> Findings:
    """Four processes, four streams a user."""
    return await _run(soak, 4, Crashes.one)


async def four_unharmed(soak: Soak) -> Findings:
    """The same, and nobody is killed."""
    return await _run(soak, 4, Crashes.none)


async def _run(soak: Soak, processes: int, act: Callable[[Crashes, Population], Awaitable[None]]) -> Findings:
    findings = Findings(scenario=soak.scenario)
    with mongod.replica_set(1) as servers, provider.running(access_ttl=ACCESS_TTL) as judge:
        async with AsyncExitStack() as stack:
            uris = [servers.uri] * processes
            samples = await stack.enter_async_context(sample_servers(judge, uris, DATABASE))
            history = await stack.enter_async_context(SessionHistory(servers.uri, DATABASE))
            population = Population(soak, samples, history, users=USERS, streams=processes)
            await stack.enter_async_context(population)
            crashes = Crashes(soak, samples, history)
            soak.begin()
            while not soak.over:
                await act(crashes, population)
            await asyncio.sleep(LEASES)
            await population.finish(findings)
            stats = await judge.stats()
            crashes.judge(findings, stats)
            # As many as one process would need, however many have streams of a session.
            most = max(history.refreshes.values())
            findings.notes.append(f"of one session at most {most} refreshes in {soak.elapsed:.0f} s")
            findings.must(most <= soak.elapsed / (EARLIEST * ACCESS_TTL) + 2, f"{most} refreshes of one session")
    return findings


class Crashes:
    """Kills and restarts, and knows which presentations were open when."""

    def __init__(self, soak: Soak, servers: list[SampleServer], history: SessionHistory) -> None:
        self.count = 0
        self.orphaned: set[tuple[str, int]] = set()
        """Sessions and token versions whose presentation no living process knew the outcome of."""
        self._soak = soak
        self._servers = servers
        self._history = history

    async def one(self, population: Population) -> None:
        """Wait, then kill somebody and start them again. Every other time in the moment of a presentation, or hardly
        any crash would fall into one."""
        random = self._soak.random
        await asyncio.sleep(random.uniform(*KILL_EVERY))
        if self.count % 2:
            with suppress(AssertionError):
                await self._history.until(lambda seen: seen.under_way(), timeout=2)
        await self.kill(random.choice(self._servers))
        self._soak.tell(
            f"{self.count} crashes, {sum(self._history.refreshes.values())} refreshes, "
            f"{sum(self._history.lost.values())} lost, {population.open_streams} streams"
        )

    async def none(self, population: Population) -> None:
        """Let time pass."""
        await asyncio.sleep(KILL_EVERY[0])
        self._soak.tell(f"{sum(self._history.refreshes.values())} refreshes, {population.open_streams} streams")

    async def kill(self, victim: SampleServer) -> None:
        """Kill it, note what it leaves behind, and start it again."""
        await asyncio.to_thread(victim.kill)
        self.count += 1
        await self._note()
        await asyncio.to_thread(victim.start)

    async def _note(self) -> None:
        """What was being presented at this moment and still is a little later has lost its owner."""
        await asyncio.sleep(0.1)  # the history hears of it a little later
        open_now = {(name, self._history.rows[name].fence) for name in self._history.under_way()}
        await asyncio.sleep(SETTLING)
        for name, fence in open_now:
            row = self._history.rows[name]
            if row.presented and row.fence == fence:
                self.orphaned.add((name, row.token_version))

    def judge(self, findings: Findings, stats: provider.ProviderStats) -> None:
        """No session may be lost but by a crash, and no token be presented twice but by the rule."""
        lost = set(self._history.lost_tokens)
        findings.notes += [
            f"{self.count} crashes, {len(self.orphaned)} presentations left without an owner",
            f"the provider: {sum(stats.refreshes.values())} refreshes, {stats.errors} errors, "
            f"{sum(stats.reuses.values())} tokens seen twice",
        ]
        findings.must(lost <= self.orphaned, f"lost without a crash: {lost - self.orphaned}")
        reuses, reattempts = sum(stats.reuses.values()), sum(self._history.reattempts.values())
        findings.doubles["outcome known"] = max(0, reuses - reattempts)
        findings.must(reuses <= reattempts, f"{reuses} tokens were presented twice, {reattempts} by the rule")
