"""The official suite, through authentication. What it does not test is in tests/mcp."""

from __future__ import annotations

import asyncio

from tests.conformance.suite import Outcome, fixtures_server, run


async def test_every_revision_that_the_suite_knows(conformance: None) -> None:
    """Everything scored of the newest revision and of 2025-11-25, and all there is for the two before. Of what is not
    scored, only the extension for tasks may fail."""
    async with fixtures_server() as url:
        newest, latest, june, march = await asyncio.gather(
            run(url, "--requirements", "2026-07-28"),
            run(url, "--requirements", "2025-11-25"),
            run(url, "--suite", "all", "--spec-version", "2025-06-18"),
            run(url, "--suite", "all", "--spec-version", "2025-03-26"),
        )
    for outcome in (newest, latest, june, march):
        assert outcome.exit == 0, outcome.output
        assert outcome.failed == 0, outcome.output
    assert newest.passed >= 120
    assert all(name.startswith("tasks-") for name in newest.red), newest.red
    assert everything_passed(latest) >= 84
    assert everything_passed(june) >= 50
    assert everything_passed(march) >= 3


def everything_passed(outcome: Outcome) -> int:
    """Passed checks, of a run in which none failed, scored or not."""
    assert not outcome.red, outcome.output
    return sum(passed for passed, _ in outcome.scenarios.values())
