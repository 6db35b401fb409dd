"""`python -m tests.soak --minutes N [--seed S] [--scenario NAME ...]`: status 1 where something was found that must
not be."""

from __future__ import annotations

import argparse
import asyncio
import secrets
import sys
from collections.abc import Awaitable, Callable

from tests.soak import clients, crashes, crowd, events, failover, half_open, killed, mixed, steady, vanished
from tests.soak.findings import Findings
from tests.soak.soak import Soak

SCENARIOS: dict[str, Callable[[Soak], Awaitable[Findings]]] = {
    "steady": steady.run,
    "processes-4": crashes.four_unharmed,
    "crashes-2": crashes.two_processes,
    "crashes-4": crashes.four_processes,
    "events": events.run,
    "failover": failover.run,
    "clients": clients.run,
    "crowd": crowd.run,
    "half-open": half_open.run,
    "killed": killed.run,
    "mixed": mixed.run,
    "vanished": vanished.run,
}


def main() -> int:
    """All scenarios, or those named, one after the other; each runs for the minutes given."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0, help="of each scenario")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(2**31), help="of all that is done at random")
    parser.add_argument("--scenario", nargs="*", choices=list(SCENARIOS), default=list(SCENARIOS), metavar="NAME")
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}", flush=True)
    failed = False
    for name in arguments.scenario:
        soak = Soak(name, arguments.minutes * 60, arguments.seed)
        findings = asyncio.run(SCENARIOS[name](soak))
        soak.tell("done\n")
        print(findings.report(), flush=True)
        failed = failed or bool(findings.failures)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
