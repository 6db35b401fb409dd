"""Names, targets, and a StatsD that is not there."""

from __future__ import annotations

import asyncio
import functools
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from tornado_sse_auth.metrics import NullMetrics, StatsDMetrics
from tornado_sse_auth.testing import ManualClock, RecordingMetrics


@pytest.fixture
def statsd() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.setblocking(False)
        yield server


async def datagrams(server: socket.socket, lines: int) -> list[bytes]:
    """Datagrams until they hold so many lines."""
    received: list[bytes] = []
    async with asyncio.timeout(10):
        while sum(len(datagram.splitlines()) for datagram in received) < lines:
            received.append(await asyncio.get_running_loop().sock_recv(server, 65_536))
    return received


async def resolved(sink: StatsDMetrics) -> None:
    """Wait for the name to be looked up."""
    thread = sink._datagrams._resolver
    assert thread is not None
    await asyncio.to_thread(thread.join, 10)


async def test_metrics_travel_many_to_a_datagram(statsd: socket.socket) -> None:
    sink = StatsDMetrics("localhost", statsd.getsockname()[1], prefix="here", instance="2")
    for _ in range(500):
        sink.increment("stream.opened")
        sink.timing("token.exchange", 0.25)
    sink.timing("session.validate", 0.051, "session.validate.hit")
    sink.gauge("stream.open", 6)
    sink.gauge("stream.open", 7)
    received = await datagrams(statsd, 506)
    lines = Counter(b"\n".join(received).split(b"\n"))
    assert lines == {
        b"here.token.exchange:250.000000|ms": 500,
        b"here.stream.opened:250|c": 2,  # as often as the timings fill a batch
        b"here.session.validate:51.000000|ms": 1,
        b"here.session.validate.hit:1|c": 1,
        b"here.target.missed.session.validate:1|c": 1,
        b"here.stream.open.2:7|g": 1,
    }
    assert max(map(len, received)) < 1400
    assert len(received) < 20
    sink.increment("stream.opened", 3)
    sink.close()
    sink.close()
    assert await datagrams(statsd, 1) == [b"here.stream.opened:3|c"]
    sink.increment("stream.opened")
    assert sink.dropped == 1


async def test_a_dead_statsd_harms_nothing() -> None:
    """REL-31: the name is gone, or nobody listens; drops are counted and memory is bounded."""
    gone = StatsDMetrics("statsd.invalid", 8125)
    for _ in range(20_000):
        gone.timing("stream.lifetime", 1.0)
    assert gone.dropped > 0
    gone.close()
    assert gone.dropped == 20_000

    clock = ManualClock()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    deaf = StatsDMetrics("127.0.0.1", port, clock=clock)
    await resolved(deaf)
    for _ in range(1000):
        deaf.timing("stream.lifetime", 1.0)
    assert deaf.dropped == 0, "nobody can know: it is UDP"

    class Full(socket.socket):
        def sendto(self, *args: object) -> int:
            raise BlockingIOError

    deaf._datagrams._sockets.pop(socket.AF_INET).close()
    deaf._datagrams._sockets[socket.AF_INET] = Full(socket.AF_INET, socket.SOCK_DGRAM)
    for _ in range(1000):
        deaf.timing("stream.lifetime", 1.0)
    deaf.close()
    assert deaf.dropped == 1000


async def test_the_name_is_looked_up_again_off_the_loop(statsd: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    """REL-31: a resolver that fails at first, and a target that moves."""
    real = socket.getaddrinfo
    answers = [OSError("not now"), None]
    threads = []

    def look_up(host: str, port: int, **options: Any) -> object:
        threads.append(threading.current_thread())
        answer = answers.pop(0)
        if answer is not None:
            raise answer
        return real("127.0.0.1", port, **options)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    clock = ManualClock()
    sink = StatsDMetrics("statsd.example", statsd.getsockname()[1], clock=clock)
    sink.increment("stream.opened")
    await resolved(sink)
    clock.advance(61)
    sink._datagrams.flush()
    await resolved(sink)
    sink.increment("stream.closed.client", 2)
    assert b"\n".join(await datagrams(statsd, 2)).count(b"|c") == 2
    assert threading.main_thread() not in threads
    sink.close()


def test_without_a_loop_each_metric_leaves_at_once(statsd: socket.socket) -> None:
    sink = StatsDMetrics("127.0.0.1", statsd.getsockname()[1])
    assert sink._datagrams._resolver is not None
    sink._datagrams._resolver.join(10)
    sink.increment("stream.opened")
    statsd.setblocking(True)
    statsd.settimeout(10)
    assert statsd.recv(2000) == b"tornado_sse_auth.stream.opened:1|c"
    sink.close()


def test_a_name_outside_the_table_fails_in_tests() -> None:
    sink = RecordingMetrics()
    sink.increment("stream.closed.slow_consumer")
    sink.increment("auth.error.invalid_token")
    sink.gauge("check.store", 2)
    sink.timing("token.refresh", 0.2, "token.refresh.success")
    assert sink.counters == {
        "stream.closed.slow_consumer": 1,
        "auth.error.invalid_token": 1,
        "token.refresh.success": 1,
        "target.missed.token.refresh": 1,
    }
    for misuse in (
        functools.partial(sink.increment, "stream.close"),
        functools.partial(sink.increment, "stream.closed."),
        functools.partial(sink.timing, "stream.opened", 1.0),
        functools.partial(sink.gauge, "stream.opened", 1),
        functools.partial(sink.gauge, "refresh.lag_ms", -1),
    ):
        with pytest.raises(ValueError):
            misuse()


def test_null_metrics_measure_nothing() -> None:
    sink = NullMetrics()
    sink.timing("anything", 1.0)
    sink.increment("anything")
    sink.gauge("anything", 1)
    sink.close()
