"""What StatsD hears of an application in use: every name of the table, from where the thing happens."""

from __future__ import annotations

from tests.parts.scripted_provider import Answer, ScriptedProvider
from tests.parts.statsd import StatsDListener
from tests.scenarios.server import provider_at, serve
from tests.scenarios.test_sign_in import World
from tests.streams.serving import until
from tornado_sse_auth import StatsDMetrics, metrics

# What only a crash, another process or damage brings; test_refresh_of_one_session.py and test_key_rotation.py here, and
# stores/test_mongo_sessions.py have these.
ELSEWHERE = {"token.refresh.reattempt", "token.refresh.lost", "token.refresh.skipped", "session.unreadable"}
PREFIX = "some.app."


async def test_every_name_is_sent(statsd: StatsDListener) -> None:
    """Sign-in, requests from cache and store, refusals, streams, refreshes of each outcome, checks; and a close, at
    which every gauge is 0."""
    async with ScriptedProvider(expires_in=2) as scripted:
        provider = provider_at(scripted, timeout=3.0)
        sink = StatsDMetrics(statsd.host, statsd.port, prefix=PREFIX[:-1], instance="one")
        async with serve(None, provider, refresh_interval=0.1, metrics=sink) as app, app.client() as browser:
            world = World(app, scripted)
            await world.sign_in(browser)
            assert [(await browser.get("/me")).status_code for _ in range(2)] == [200, 200]
            async with app.client() as stranger:
                bad = {"Authorization": f"Bearer {'x' * 43}"}
                assert (await stranger.get("/me", headers=bad)).status_code == 401
            async with app.stream("/prices", cookies=browser.cookies) as stream:
                await stream.next("open")
                scripted.script("token", Answer(status=500))
                await scripted.wait_for_calls("token", 2, grant_type="refresh_token", timeout=15)
                scripted.script("token", Answer(status=400, body='{"error": "invalid_grant"}'))
                await stream.next("auth_required", timeout=20)
            await until(lambda: not len(app.auth.registry))
        gauges = {f"{PREFIX}{name}.one" for name in metrics.GAUGES if not name.endswith(".")}
        for name in gauges:
            assert (await statsd.wait_for(name))[-1].value == 0
    heard = {sample.name.removeprefix(PREFIX) for sample in statsd.received}
    assert {sample.name for sample in statsd.received if not sample.name.startswith(PREFIX)} == set()
    for table, kind in ((metrics.TIMERS, "ms"), (metrics.COUNTERS, "c"), (metrics.GAUGES, "g")):
        sent = {
            sample.name.removeprefix(PREFIX).removesuffix(".one") for sample in statsd.received if sample.kind == kind
        }
        for name in table - ELSEWHERE:
            if not name.startswith("target.missed."):  # on a machine that is fast enough there is none
                assert any(one.startswith(name) if name.endswith(".") else one == name for one in sent), name
        assert all(metrics.is_known(name, table) for name in sent)
    assert {"stream.closed.client", "auth.error.invalid_token", "check.store.one", "check.provider.one"} <= heard
