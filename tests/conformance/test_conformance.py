"""The official suite, through authentication. What it does not test is in tests/mcp."""

from __future__ import annotations

from tests.conformance.suite import fixtures_server, run


async def test_2026_07_28(conformance: None) -> None:
    """Every scored scenario of the newest revision."""
    async with fixtures_server() as url:
        outcome = await run(url, "--requirements", "2026-07-28")
    assert outcome.failed == 0, outcome.output
    assert outcome.exit == 0, outcome.output
    assert outcome.passed >= 120
    assert all(name.startswith("tasks-") for name in outcome.red), outcome.red
