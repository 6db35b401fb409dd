"""The primary of three goes away in four ways, under two servers with open streams."""

from __future__ import annotations

import asyncio
import signal
import time

import httpx
import pytest

from tests.parts import provider as oidc
from tests.parts.mongod import ReplicaSet
from tests.parts.sample_server import SampleServer, User, sample_servers, signed_in
from tests.soak import failover
from tests.soak.findings import Findings
from tests.soak.soak import Soak

PATIENCE = 60.0


@pytest.mark.real("mongod")
@pytest.mark.real("provider")
async def test_a_change_of_primary_is_an_outage_and_nothing_worse(account: str) -> None:
    """REL-06, REL-07, REL-08: streams stay open, cached sessions answer, the rest gets 503 with Retry-After and never
    401, and afterwards everything works by itself: no acknowledged session, revocation or event is lost."""
    findings = Findings(scenario="fail-over")
    async with failover.scene(Soak("fail-over", 0.0, seed=7), users=4, streams=2, frozen=6.0) as stage:
        one, two = stage.servers
        for number, (name, fault) in enumerate(stage.faults.all.items()):
            stays = await signed_in(one, f"{account}-stays-{number}")
            leaves = await signed_in(one, f"{account}-leaves-{number}")
            assert (await leaves.sign_out()).status_code == 204
            assert await status(stays, one) == 200  # in the cache of one, unknown to two
            async with fault():
                assert await status(stays, one) == 200
                asking = asyncio.create_task(answers(stays, two))
                recovery = await stage.population.recovered(timeout=PATIENCE)
                assert recovery is not None, name
                seen = await asyncio.wait_for(asking, PATIENCE)
            assert set(seen) <= {200, 503}, (name, seen)
            for server in stage.servers:
                assert await status(stays, server) == 200
                assert await status(leaves, server) == 401
        await stage.population.finish(findings)
        await failover.judge(stage, findings)
    assert findings.failures == []
    assert findings.events_published > 0
    assert stage.population.statuses["/publish 503"] > 0  # there was an outage


async def status(user: User, server: SampleServer) -> int:
    async with user.client(server) as client:
        return (await client.get("/me")).status_code


async def answers(user: User, server: SampleServer) -> list[int]:
    """Statuses of one request after the other until one succeeds; a refusal says when to come back."""
    seen: list[int] = []
    deadline = time.monotonic() + PATIENCE
    async with user.client(server) as client:
        while time.monotonic() < deadline:
            answer: httpx.Response = await client.get("/me", timeout=5)
            seen.append(answer.status_code)
            if answer.status_code != 503:
                break
            assert int(answer.headers["Retry-After"]) >= 1
            assert answer.json()["error"] == "store_unavailable"
            await asyncio.sleep(0.1)
    return seen


async def test_a_frozen_database_does_not_hold_up_the_end(
    own_mongod: ReplicaSet, provider: oidc.Provider, account: str
) -> None:
    """REL-19: streams are told, the process ends in its drain time with status 0, on either driver."""
    async with sample_servers(provider, [own_mongod.uri] * 2, "frozen") as servers:
        user = await signed_in(servers[0], account)
        async with user.stream(servers[0]) as one, user.stream(servers[1]) as two:
            with own_mongod.members[0].stopped():
                for server in servers:
                    server.signal(signal.SIGTERM)
                for stream in (one, two):
                    assert (await stream.next("end", timeout=20)).json() == {"reason": "server_shutdown"}
                for server in servers:
                    assert await asyncio.to_thread(server.wait, 20) == 0
