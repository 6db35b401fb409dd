"""Every metric, read back from the real Graphite; and the dashboard, in the real graphite-web."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from tests.graphite.definition import DASHBOARD, GRAPHS, NAME, URLS, text, urls
from tests.graphite.drive import REFUSED, STREAMS, driven_servers
from tests.parts import graphite as real
from tests.parts import mongod as mongo
from tests.parts.require import require
from tests.parts.sample_server import SampleServer
from tornado_sse_auth.metrics import COUNTERS, GAUGES, TARGETS, TIMERS

PREFIX = {kind: f"stats.{kind}.tornado_sse_auth" for kind in ("timers", "counters", "gauges")}
MEMBERS = {"stream.closed.": "client", "auth.error.": "invalid_token", "check.": "store"}
MINUTES = 600
ARRIVES_WITHIN = 60.0


@pytest.fixture(scope="module")
def graphite() -> Iterator[real.Graphite]:
    """StatsD, carbon and graphite-web."""
    require(real.check_available)
    require(mongo.find_binary)
    with real.running() as server:
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def servers(graphite: real.Graphite) -> AsyncIterator[list[SampleServer]]:
    """Two sample servers that have done everything that is measured."""
    with mongo.replica_set(1) as mongod:
        async with driven_servers(graphite, mongod) as running:
            yield running


def values(graphite: real.Graphite, target: str) -> list[float]:
    """What stands in the series of a target."""
    return [
        value
        for series in graphite.render(target, seconds=MINUTES)
        for value, _ in series["datapoints"]
        if value is not None
    ]


async def arrived(graphite: real.Graphite, target: str, *, above: float | None) -> list[float]:
    """The values of a target, once there are some, and one is above that."""
    deadline = time.monotonic() + ARRIVES_WITHIN
    while True:
        found = await asyncio.to_thread(values, graphite, target)
        if found and (above is None or max(found) > above):
            return found
        assert time.monotonic() < deadline, f"{target}: {found[-5:]}"
        await asyncio.sleep(0.5)


def whole(name: str) -> str:
    return name + MEMBERS.get(name, "")


@pytest.mark.asyncio(loop_scope="module")
async def test_every_metric_is_read_back(graphite: real.Graphite, servers: list[SampleServer]) -> None:
    """Under its name, in its unit, with a value that is plausible for what was done."""
    for timer in sorted(TIMERS):
        highest = max(await arrived(graphite, f"{PREFIX['timers']}.{timer}.upper_95", above=0.0))
        assert highest < (120_000 if timer == "stream.lifetime" else 20_000), timer
        if timer in TARGETS:
            assert highest > TARGETS[timer] * 1000, f"{timer}: it was made to miss its target"
    totals = {
        name: sum(await arrived(graphite, f"{PREFIX['counters']}.{whole(name)}.count", above=0.0))
        for name in sorted(COUNTERS)
    }
    assert totals["stream.opened"] == 2 * STREAMS - 1
    assert totals["session.validate.rejected"] >= REFUSED
    assert totals["auth.error."] == REFUSED + totals["session.unreadable"]
    assert totals["token.refresh.reattempt"] == totals["token.refresh.lost"] == 1
    assert totals["token.refresh.permanent"] == 1
    for name in sorted(GAUGES):
        found = await arrived(graphite, f"{PREFIX['gauges']}.{whole(name)}", above=None)
        assert min(found) >= 0
    opened = await arrived(
        graphite, f"sumSeries({PREFIX['gauges']}.stream.open,{PREFIX['gauges']}.stream.open.*)", above=1
    )
    assert max(opened) <= 2 * STREAMS - 1
    assert max(await arrived(graphite, f"{PREFIX['gauges']}.check.*", above=None)) <= 2


@pytest.mark.asyncio(loop_scope="module")
async def test_the_dashboard_is_imported_and_draws(graphite: real.Graphite, servers: list[SampleServer]) -> None:
    """`docs/graphite/dashboard.json` is what its source makes, graphite-web takes it, and every graph has lines."""
    definition = DASHBOARD.read_text()
    assert definition == text(), "python -m tests.graphite --definition makes it anew"
    assert URLS.read_text() == urls()
    saved = json.loads(await asyncio.to_thread(graphite.post, f"/dashboard/save/{NAME}", state=definition))
    assert saved == {"success": True}
    loaded = json.loads(await asyncio.to_thread(graphite.get, f"/dashboard/load/{NAME}"))["state"]
    assert loaded == json.loads(definition)
    for graph, (_, _, url) in zip(GRAPHS, loaded["graphs"], strict=True):
        assert url == graph.url()
        for target in graph.targets:
            await arrived(graphite, target, above=None)
        picture = await asyncio.to_thread(graphite.get, f"{url}&from=-{MINUTES}s&width=500&height=260")
        assert picture.startswith(b"\x89PNG")
