"""The telling ones of the faults; `python -m tests.health` brings about all of them."""

from __future__ import annotations

import re

from tests.health.faults import (
    PROCESS_FAULTS,
    PROVIDER_FAULTS,
    STORE_FAULTS,
    Fault,
    Observed,
    observe,
    real_world,
)
from tests.parts import provider as oidc
from tests.parts.mongod import ReplicaSet


def named(faults: tuple[Fault, ...], name: str) -> Fault:
    return next(fault for fault in faults if fault.name == name)


def tells(observed: Observed) -> None:
    """What, since when, whom it hurts, what to do; and nothing that is nobody's business."""
    assert re.fullmatch(r"Since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC [^:]+( \(.+\))?: .+; .+\.", observed.output)
    assert not re.search(r"://|127\.0\.0\.1|Traceback|password|secret", observed.output)


async def test_faults_are_told_apart_in_bounded_time_while_the_stream_goes_on(
    own_mongod: ReplicaSet, own_provider: oidc.Provider
) -> None:
    """REL-06, REL-25: what load balancers and people on call see of a frozen store, a provider that is down, and a loop
    that stood still; all is well again by itself."""
    async with real_world(own_mongod, own_provider) as world:
        frozen = await observe(world, named(STORE_FAULTS, "mongod is frozen"), settle=1.0)
        assert frozen.said == {"/livez": "200 pass", "/readyz": "503 fail", "/health": "503 fail"}
        down = await observe(world, named(PROVIDER_FAULTS, "the provider is down"), settle=1.0)
        assert down.said == {"/livez": "200 pass", "/readyz": "200 warn", "/health": "200 warn"}
        blocked = await observe(world, PROCESS_FAULTS[0], settle=1.0)
        assert blocked.said["/livez"] == "200 pass"
        assert "held up" in blocked.output
        for observed in (frozen, down, blocked):
            tells(observed)
