"""What is measured: every name and target in one table, and the sinks that take the measurements."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from abc import ABC, abstractmethod
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from statsd.client.base import StatsClientBase

from .clock import Clock, SystemClock

__all__ = [
    "COUNTERS",
    "GAUGES",
    "TARGETS",
    "TIMERS",
    "Metrics",
    "NullMetrics",
    "StatsDMetrics",
    "is_known",
    "over_target",
]

logger = logging.getLogger(__name__)

TIMERS: Final = frozenset(
    {
        "session.validate",
        "store.lookup",
        "store.write",
        "token.refresh",
        "token.exchange",
        "provider.check",
        "store.check",
        "stream.lifetime",
    }
)
# Seconds that the 95th percentile of an operation may take; each longer one is counted as `target.missed.<timer>`.
TARGETS: Final[Mapping[str, float]] = MappingProxyType(
    {"session.validate": 0.050, "token.refresh": 0.100, "store.lookup": 0.025, "provider.check": 0.200}
)
# A name that ends with a dot stands for every name that begins with it.
COUNTERS: Final = frozenset(
    {
        "session.validate.hit",
        "session.validate.miss",
        "session.validate.rejected",
        "session.unreadable",
        "token.refresh.success",
        "token.refresh.transient",
        "token.refresh.permanent",
        "token.refresh.skipped",
        "token.refresh.reattempt",
        "token.refresh.lost",
        "stream.opened",
        "stream.closed.",
        "auth.error.",
    }
    | {f"target.missed.{timer}" for timer in TARGETS}
)
GAUGES: Final = frozenset({"stream.open", "session.active", "refresh.scheduled", "refresh.lag_ms", "check."})


def is_known(name: str, table: frozenset[str]) -> bool:
    """Whether `table` (`TIMERS`, `COUNTERS` or `GAUGES`) has `name`."""
    family, dot, member = name.rpartition(".")
    return bool(member) and (name in table or family + dot in table)


def over_target(name: str, timings: Sequence[float]) -> int:
    """How many of `timings`, in seconds, took longer than the target of the timer `name`."""
    target = TARGETS.get(name)
    if target is None or max(timings) <= target:
        return 0
    return sum(seconds > target for seconds in timings)


class Metrics(ABC):
    """A sink for measurements. Its methods neither wait nor raise, whatever became of the sink's other end."""

    __slots__ = ()

    def timing(self, name: str, seconds: float, counted: str | None = None) -> None:
        """An operation took `seconds`; above its target it is also counted as `target.missed.<name>`.

        `counted`: the counter that goes with it. One call is what each request can afford.
        """
        self.timer(name, seconds)
        if counted is not None:
            self.increment(counted)
        if over_target(name, (seconds,)):
            self.increment("target.missed." + name)

    @abstractmethod
    def timer(self, name: str, seconds: float) -> None:
        """Record the timing alone: what a sink implements, and `timing` is for everybody else."""

    @abstractmethod
    def increment(self, name: str, count: int = 1) -> None:
        """Something happened `count` times."""

    @abstractmethod
    def gauge(self, name: str, value: float) -> None:
        """The present `value`, not below zero."""

    @abstractmethod
    def close(self) -> None:
        """Send what is left, give back the socket. Twice is once."""


class NullMetrics(Metrics):
    """Measures nothing."""

    __slots__ = ()

    def timing(self, name: str, seconds: float, counted: str | None = None) -> None:
        """Nothing."""

    def timer(self, name: str, seconds: float) -> None:
        """Nothing."""

    def increment(self, name: str, count: int = 1) -> None:
        """Nothing."""

    def gauge(self, name: str, value: float) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class StatsDMetrics(Metrics):
    """Sends to StatsD at `host`:`port` by UDP, many metrics to a datagram, at most 0.1 s late.

    With an `instance` a gauge is `<name>.<instance>`: under one name StatsD would keep whoever wrote last. What cannot
    be sent is dropped and counted in `dropped`. The name is looked up in the background, again each minute.
    """

    DELAY = 0.1
    TIMINGS = 250  # kept until they are sent

    def __init__(
        self,
        host: str,
        port: int,
        prefix: str = "tornado_sse_auth",
        instance: str | None = None,
        *,
        clock: Clock | None = None,
    ) -> None:
        self._datagrams = _Datagrams(host, port, clock or SystemClock())
        self._client = _Client(prefix, self._datagrams)
        self._gauge_suffix = "" if instance is None else f".{instance}"
        # A request only leaves a note here; lines are made of the notes together, many at a time.
        self._timings: defaultdict[str, list[float]] = defaultdict(list)
        self._counts: defaultdict[str, int] = defaultdict(int)
        self._gauges: dict[str, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    @property
    def dropped(self) -> int:
        """Metrics that could not be sent so far."""
        return self._datagrams.dropped

    def timing(self, name: str, seconds: float, counted: str | None = None) -> None:
        """Record a timing, in milliseconds as StatsD wants it."""
        timings = self._timings[name]
        timings.append(seconds)
        if counted is not None:
            self._counts[counted] += 1
        if self._timer is None or len(timings) >= self.TIMINGS:
            self._arrange_flush(full=len(timings) >= self.TIMINGS)

    def timer(self, name: str, seconds: float) -> None:
        """The same."""
        self.timing(name, seconds)

    def increment(self, name: str, count: int = 1) -> None:
        """Count."""
        self._counts[name] += count
        if self._timer is None:
            self._arrange_flush()

    def gauge(self, name: str, value: float) -> None:
        """Set a gauge."""
        self._gauges[name] = value
        if self._timer is None:
            self._arrange_flush()

    def close(self) -> None:
        """Send what is left and close the socket. Twice is once."""
        self._flush()
        self._datagrams.close()

    def _arrange_flush(self, *, full: bool = False) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # nobody would flush later
            loop = None
        if loop is None or self._datagrams.closed or full:
            self._flush()
        else:
            self._timer = loop.call_later(self.DELAY, self._flush)

    def _flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for name, timings in self._timings.items():
            self._client.timings(name, timings)
            missed = over_target(name, timings)
            if missed:
                self._counts["target.missed." + name] += missed
        for name, count in self._counts.items():
            self._client.incr(name, count)
        for name, value in self._gauges.items():
            self._client.gauge(name + self._gauge_suffix, value)
        self._timings.clear()
        self._counts.clear()
        self._gauges.clear()
        self._datagrams.flush()


class _Client(StatsClientBase):  # type: ignore[misc]
    """The line protocol is the statsd package's; its own UDP client resolves on the loop and sends line by line."""

    def __init__(self, prefix: str, datagrams: _Datagrams) -> None:
        self._prefix = prefix
        self._send = datagrams.add

    def timings(self, name: str, timings: Sequence[float]) -> None:
        """In seconds. Written as `timing` would, without five calls for each of the many that there are."""
        line = f"{self._prefix}.{name}:".replace("%", "%%") + "%.6f|ms"
        self._send("\n".join([line] * len(timings)) % tuple([seconds * 1000.0 for seconds in timings]))

    def pipeline(self) -> Any:
        raise NotImplementedError("lines are batched below this client")


class _Datagrams:
    """Packs lines into datagrams and sends them without ever waiting. For one thread."""

    SIZE = 1400  # what fits an Ethernet frame with room for tunnels
    RESOLVE_EACH = 60.0
    WAITING = 64  # datagrams kept while the name is looked up for the first time

    def __init__(self, host: str, port: int, clock: Clock) -> None:
        self._target = (host, port)
        self._clock = clock
        self._lines: list[str] = []
        self._waiting: deque[tuple[bytes, int]] = deque()
        self._sockets: dict[int, socket.socket] = {}
        self._address: tuple[int, Any] | None = None
        self._resolver: threading.Thread | None = None
        self._resolved_at = clock.monotonic()
        self.closed = False
        self.dropped = 0
        self._resolve()

    def add(self, lines: str) -> None:
        if self.closed:
            self.dropped += _lines(lines)
        else:
            self._lines.append(lines)

    def flush(self) -> None:
        if self.closed:
            return
        if self._clock.monotonic() - self._resolved_at > self.RESOLVE_EACH:
            self._resolve()
        if self._lines:
            self._waiting.extend(self._packed("\n".join(self._lines)))
            self._lines.clear()
        if self._address is None:
            while len(self._waiting) > self.WAITING:
                self.dropped += self._waiting.popleft()[1]
            return
        while self._waiting:
            self._send(*self._waiting.popleft())

    def close(self) -> None:
        if self.closed:
            return
        self.flush()
        self.closed = True
        self.dropped += sum(count for _, count in self._waiting)
        self._waiting.clear()
        for sock in self._sockets.values():
            sock.close()
        self._sockets.clear()

    def _packed(self, lines: str) -> Iterator[tuple[bytes, int]]:
        """As many lines to a datagram as fit, and how many they are."""
        lines += "\n"
        begin = 0
        while begin < len(lines):
            end = lines.rfind("\n", begin, begin + self.SIZE)
            if end < 0:  # one that is longer than a datagram should be
                end = lines.index("\n", begin)
            packed = lines[begin:end]
            yield packed.encode("utf-8", "replace"), _lines(packed)
            begin = end + 1

    def _send(self, datagram: bytes, count: int) -> None:
        assert self._address is not None  # noqa: S101 - flush() has seen it
        family, address = self._address
        try:
            sock = self._sockets.get(family)
            if sock is None:
                sock = self._sockets[family] = socket.socket(family, socket.SOCK_DGRAM)
                sock.setblocking(False)
            sock.sendto(datagram, address)
        except OSError:  # a full buffer, no route, no descriptor: a measurement is never worth waiting for
            self.dropped += count

    def _resolve(self) -> None:
        self._resolved_at = self._clock.monotonic()
        if self._resolver is not None and self._resolver.is_alive():
            return
        # A daemon thread, not the loop's executor: a resolver that hangs must not keep the process from ending.
        self._resolver = threading.Thread(target=self._look_up, name="statsd-name", daemon=True)
        self._resolver.start()

    def _look_up(self) -> None:
        host, port = self._target
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
        except (OSError, UnicodeError) as error:
            logger.warning("the StatsD host %s does not resolve: %s", host, error)
        else:
            # IPv4 first: StatsD listens there by default, and nobody answers a datagram to say that it was in vain.
            family, _, _, _, address = min(found, key=lambda entry: entry[0] != socket.AF_INET)
            self._address = (family, address)


def _lines(text: str) -> int:
    return text.count("\n") + 1
