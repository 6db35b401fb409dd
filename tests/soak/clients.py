"""Every MCP client at work with tokens of four seconds: on two processes, and on one, with the oldest transport."""

from __future__ import annotations

from collections.abc import Iterable

from tests.mcp.clients.deployment import HTTP_SSE, KINDS, complaints, deployed
from tests.parts import mongod, provider
from tests.soak.findings import Findings
from tests.soak.soak import Soak

PROVIDER_TTL = 6


async def run(soak: Soak) -> Findings:
    """Half of the time over two processes, half at one."""
    findings = Findings(scenario=soak.scenario)
    await _work(soak, findings, KINDS, processes=2)
    await _work(soak, findings, [*KINDS, HTTP_SSE], processes=1)
    return findings


async def _work(soak: Soak, findings: Findings, kinds: Iterable[str], *, processes: int) -> None:
    seconds = soak.seconds / 2
    place = "one process" if processes == 1 else f"{processes} processes"
    with mongod.replica_set(1) as servers, provider.running(access_ttl=PROVIDER_TTL) as judge:
        async with deployed(judge, servers.uri, processes=processes) as deployment:
            soak.begin()
            outcomes = await deployment.work(kinds, seconds)
            for name, outcome in outcomes.items():
                made = f"{outcome.calls} calls, {len(outcome.failures)} failed, {outcome.sign_ins} sign-in"
                findings.notes.append(f"{name}, {place}: {made}")
                findings.failures += complaints(name, outcome, seconds)
            stats = await judge.stats()
            findings.refreshes += sum(stats.refreshes.values())
            findings.doubles.update({"known": sum(stats.reuses.values())})
            findings.must(stats.errors == {}, f"the provider refused: {stats.errors}")
            findings.must(stats.reuses == {}, f"tokens were presented twice: {stats.reuses}")
