"""Every MCP client at work on two processes with tokens of four seconds, and the oldest transport on one."""

from __future__ import annotations

from collections.abc import Iterable

from tests.mcp.clients.deployment import (
    ACCESS_TOKEN_TTL,
    FOR_MCP_REMOTE_TTL,
    HTTP_SSE,
    KINDS,
    MCP_REMOTE,
    complaints,
    deployed,
)
from tests.parts import mongod, provider
from tests.soak.findings import Findings
from tests.soak.soak import Soak

PROVIDER_TTL = 6


async def run(soak: Soak) -> Findings:
    """A third of the time each."""
    findings = Findings(scenario=soak.scenario)
    await _work(soak, findings, KINDS, processes=2)
    await _work(soak, findings, [MCP_REMOTE], processes=2, ttl=FOR_MCP_REMOTE_TTL)
    await _work(soak, findings, [HTTP_SSE], processes=1)
    return findings


async def _work(
    soak: Soak, findings: Findings, kinds: Iterable[str], *, processes: int, ttl: int = ACCESS_TOKEN_TTL
) -> None:
    seconds = soak.seconds / 3
    with mongod.replica_set(1) as servers, provider.running(access_ttl=PROVIDER_TTL) as judge:
        async with deployed(judge, servers.uri, processes=processes, access_token_ttl=ttl) as deployment:
            soak.begin()
            outcomes = await deployment.work(kinds, seconds)
            for name, outcome in outcomes.items():
                findings.notes.append(
                    f"{name}: {outcome.calls} calls, {len(outcome.failures)} failed, {outcome.sign_ins} sign-in"
                )
                findings.failures += complaints(name, outcome, seconds)
            stats = await judge.stats()
            findings.refreshes += sum(stats.refreshes.values())
            findings.doubles.update({"known": sum(stats.reuses.values())})
            findings.must(stats.errors == {}, f"the provider refused: {stats.errors}")
            findings.must(stats.reuses == {}, f"tokens were presented twice: {stats.reuses}")
