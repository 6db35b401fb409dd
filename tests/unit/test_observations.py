"""What is kept of the measurements: percentiles, rates, targets, and the bound on memory."""

from __future__ import annotations

import random
import statistics

from tornado_sse_auth.metrics import COUNTERS, TARGETS, TIMERS, NullMetrics
from tornado_sse_auth.observations import SLOTS, Observations
from tornado_sse_auth.testing import ManualClock, RecordingMetrics


def test_percentiles_are_those_of_the_samples_and_the_sink_sees_all() -> None:
    sink = RecordingMetrics()
    observations = Observations(sink, clock=ManualClock())
    source = random.Random(7)
    samples = [source.lognormvariate(-5.0, 1.0) for _ in range(5000)]
    for seconds in samples:
        observations.timing("session.validate", seconds, "session.validate.hit")
    seen = observations.timing_of("session.validate")
    hundredths = statistics.quantiles(samples, n=100, method="inclusive")
    for found, percent in ((seen.p50, 50), (seen.p95, 95), (seen.p99, 99)):
        assert abs(found / hundredths[percent - 1] - 1) < 0.03
    assert seen.count == 5000
    assert seen.longest == max(samples)
    assert abs(seen.mean - statistics.mean(samples)) < 1e-9
    assert seen.over_target == sum(seconds > TARGETS["session.validate"] for seconds in samples)
    assert sink.timings == [("session.validate", seconds) for seconds in samples]
    counted = {"session.validate.hit": 5000, "target.missed.session.validate": seen.over_target}
    assert observations.counts() == sink.counters == counted


def test_a_target_is_judged_from_twenty_samples_on() -> None:
    observations = Observations(NullMetrics(), clock=ManualClock())
    for _ in range(19):
        observations.timing("store.lookup", 0.030)
    assert observations.timing_of("store.lookup").target_met is None
    observations.timing("store.lookup", 0.001)
    assert observations.timing_of("store.lookup").target_met is False
    for _ in range(361):
        observations.timing("store.lookup", 0.001)
    assert observations.timing_of("store.lookup").target_met is True, "19 of 381 is under 5 %"
    assert observations.timing_of("store.write").target_met is None


def test_rates_and_history_follow_the_clock() -> None:
    clock = ManualClock()
    observations = Observations(NullMetrics(), clock=clock)
    for second in range(60):
        observations.increment("session.validate.hit", 4)
        if second >= 30:
            observations.timing("token.refresh", 0.010)
        clock.advance(1.0)
    assert observations.count_of("session.validate.hit") == 240
    assert observations.rate_of("session.validate.hit") == 4.0
    assert observations.counts(20.0) == {"session.validate.hit": 40}, "the running slot and the one before"
    history = observations.history()
    assert [interval.counts.get("session.validate.hit", 0) for interval in history] == [40] * 6 + [0]
    assert ["token.refresh" in interval.timers for interval in history] == [False] * 3 + [True] * 3 + [False]
    assert history[0].started_at == clock.time() - 60
    assert [interval.seconds for interval in history[:-1]] == [10.0] * 6
    assert history[4].timers["token.refresh"].rate == 1.0

    clock.advance(240.0)
    assert observations.count_of("session.validate.hit") == 200, "the first slot has left"
    clock.advance(300.0)
    assert observations.counts() == {}
    assert observations.timing_of("token.refresh").p95 == 0.0


def test_memory_is_bounded_by_names() -> None:
    clock = ManualClock()
    observations = Observations(NullMetrics(), clock=clock)
    source = random.Random(1)
    for _ in range(200):
        for name in TIMERS:
            for _ in range(20):
                observations.timing(name, 10 ** source.uniform(-9, 5))
        for name in COUNTERS:
            observations.increment(name)
        clock.advance(5.0)
    assert len(observations._slots) <= SLOTS + 1
    assert max(len(h.buckets) for slot in observations._slots.values() for h in slot.timers.values()) < 700
    observations.gauge("stream.open", 3)
    observations.gauge("stream.open", 4)
    assert observations.gauges == {"stream.open": 4}
