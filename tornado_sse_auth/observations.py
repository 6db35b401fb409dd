"""What was measured lately, kept in the process: percentiles, rates and counts for health and for pages."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from .clock import Clock, SystemClock
from .metrics import TARGETS, Metrics, over_target

__all__ = ["Interval", "Observations", "TimerSummary"]

SLOT = 10.0
SLOTS = 30
SPAN = SLOT * SLOTS
ENOUGH = 20
# Buckets grow by a 16th of an octave: what is read from one is at most 2.2 % off.
BUCKETS_AN_OCTAVE = 16
SHORTEST = 1e-7
NOTES = 250  # timings of one name that wait to be taken in


@dataclass(frozen=True, slots=True, kw_only=True)
class TimerSummary:
    """How long one operation took. Times in seconds, 0 where nothing was measured; percentiles within 2.2 %.

    `over_target`: how many took longer than `target`, exactly; both are None for a timer without a target.
    """

    name: str
    count: int
    rate: float
    mean: float
    p50: float
    p95: float
    p99: float
    longest: float
    target: float | None
    over_target: int | None

    @property
    def target_met(self) -> bool | None:
        """Whether at least 95 % were within the target; None without a target or with fewer than 20 measured."""
        if self.over_target is None or self.count < ENOUGH:
            return None
        return self.over_target <= 0.05 * self.count


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """What was seen in the `seconds` from `started_at` (epoch seconds) on. A name that was not seen is not there."""

    started_at: float
    seconds: float
    timers: Mapping[str, TimerSummary]
    counts: Mapping[str, int]


class _Histogram:
    """How often which duration, by buckets of about 4 %."""

    __slots__ = ("buckets", "count", "longest", "over", "total")

    def __init__(self) -> None:
        self.buckets: Counter[int] = Counter()
        self.count = 0
        self.total = 0.0
        self.longest = 0.0
        self.over = 0

    def take(self, timings: Sequence[float], over: int) -> None:
        log2 = math.log2
        self.buckets.update(
            [int(log2(seconds / SHORTEST) * BUCKETS_AN_OCTAVE) if seconds > SHORTEST else 0 for seconds in timings]
        )
        self.count += len(timings)
        self.total += sum(timings)
        self.longest = max(self.longest, *timings)
        self.over += over

    def add(self, other: _Histogram) -> None:
        self.buckets.update(other.buckets)
        self.count += other.count
        self.total += other.total
        self.over += other.over
        self.longest = max(self.longest, other.longest)

    def percentiles(self, *parts: float) -> Iterator[float]:
        """The duration below which each of `parts` (rising, 0 to 1) lies."""
        ordered = iter(sorted(self.buckets.items()))
        seen, value = 0, 0.0
        for part in parts:
            rank = max(1, math.ceil(part * self.count)) if self.count else 0
            while seen < rank:
                bucket, count = next(ordered)
                seen += count
                value = SHORTEST * 2 ** ((bucket + 0.5) / BUCKETS_AN_OCTAVE)
            yield min(value, self.longest)

    def summary(self, name: str, seconds: float) -> TimerSummary:
        p50, p95, p99 = self.percentiles(0.50, 0.95, 0.99)
        target = TARGETS.get(name)
        return TimerSummary(
            name=name,
            count=self.count,
            rate=self.count / seconds,
            mean=self.total / self.count if self.count else 0.0,
            p50=p50,
            p95=p95,
            p99=p99,
            longest=self.longest,
            target=target,
            over_target=None if target is None else self.over,
        )


class _Slot:
    """Ten seconds. A timing is only noted; notes become histograms together, which costs each of them far less."""

    __slots__ = ("_timers", "counted", "noted")

    def __init__(self) -> None:
        self.noted: defaultdict[str, list[float]] = defaultdict(list)
        self.counted: defaultdict[str, int] = defaultdict(int)
        self._timers: defaultdict[str, _Histogram] = defaultdict(_Histogram)

    @property
    def counts(self) -> Mapping[str, int]:
        """How often, by name."""
        self.take_in()
        return self.counted

    @property
    def timers(self) -> Mapping[str, _Histogram]:
        """The histograms, by name."""
        self.take_in()
        return self._timers

    def take_in(self) -> None:
        """Make histograms of what was noted."""
        for name, timings in self.noted.items():
            missed = over_target(name, timings)
            if missed:
                self.counted["target.missed." + name] += missed
            self._timers[name].take(timings, missed)
        self.noted.clear()


class Observations(Metrics):
    """Stands in front of a sink: passes everything on, and keeps the last five minutes in slots of ten seconds.

    Memory is bounded by the table of names, whatever the load. For one thread. The methods that read take `seconds`,
    the length of the past that is asked for: at most 300, and rounded up to whole slots.
    """

    __slots__ = ("_begun", "_clock", "_gauges", "_slot", "_slot_ends", "_slots", "sink")

    def __init__(self, sink: Metrics, *, clock: Clock | None = None) -> None:
        self.sink = sink
        self._clock = clock or SystemClock()
        self._gauges: dict[str, float] = {}
        self._slots: dict[int, _Slot] = {}
        self._begun = self._clock.monotonic()
        self._slot = _Slot()
        self._slot_ends = -math.inf

    # -- a sink ----------------------------------------------------------------------------------------------------

    def timing(self, name: str, seconds: float, counted: str | None = None) -> None:
        """Keep and pass on."""
        self.sink.timing(name, seconds, counted)
        if self._clock.monotonic() >= self._slot_ends:
            self._next_slot()
        slot = self._slot
        timings = slot.noted[name]
        timings.append(seconds)
        if counted is not None:
            slot.counted[counted] += 1
        if len(timings) >= NOTES:
            slot.take_in()

    def timer(self, name: str, seconds: float) -> None:
        """The same."""
        self.timing(name, seconds)

    def increment(self, name: str, count: int = 1) -> None:
        """Keep and pass on."""
        self.sink.increment(name, count)
        if self._clock.monotonic() >= self._slot_ends:
            self._next_slot()
        self._slot.counted[name] += count

    def gauge(self, name: str, value: float) -> None:
        """Keep the newest and pass on."""
        self.sink.gauge(name, value)
        self._gauges[name] = value

    def close(self) -> None:
        """Close the sink; what was kept can still be read."""
        self.sink.close()

    def _next_slot(self) -> None:
        self._slot.take_in()
        index = self._index()
        for old in [known for known in self._slots if known <= index - SLOTS]:
            del self._slots[old]
        self._slot = self._slots.setdefault(index, _Slot())
        self._slot_ends = (index + 1) * SLOT

    # -- what was seen ---------------------------------------------------------------------------------------------

    @property
    def gauges(self) -> Mapping[str, float]:
        """The newest value of each gauge."""
        return dict(self._gauges)

    def timing_of(self, name: str, seconds: float = SPAN) -> TimerSummary:
        """The timer `name` over the last `seconds`."""
        together = _Histogram()
        for slot in self._last(seconds):
            if name in slot.timers:
                together.add(slot.timers[name])
        return together.summary(name, self._covered(seconds))

    def count_of(self, name: str, seconds: float = SPAN) -> int:
        """How often `name` was counted in the last `seconds`."""
        return sum(slot.counts.get(name, 0) for slot in self._last(seconds))

    def rate_of(self, name: str, seconds: float = SPAN) -> float:
        """The same a second; over the time since the start, where that is shorter."""
        return self.count_of(name, seconds) / self._covered(seconds)

    def counts(self, seconds: float = SPAN) -> dict[str, int]:
        """Every counter that moved in the last `seconds`."""
        found: dict[str, int] = {}
        for slot in self._last(seconds):
            for name, count in slot.counts.items():
                found[name] = found.get(name, 0) + count
        return found

    def history(self, seconds: float = SPAN) -> tuple[Interval, ...]:
        """Slot by slot, oldest first and without gaps; the last one is still running."""
        now = self._clock.monotonic()
        offset = self._clock.time() - now
        intervals = []
        for index in self._indices(seconds):
            slot = self._slots.get(index) or _Slot()
            started = max(index * SLOT, self._begun)
            lasted = max(min((index + 1) * SLOT, now) - started, 1e-3)
            intervals.append(
                Interval(
                    started_at=offset + started,
                    seconds=lasted,
                    timers={name: histogram.summary(name, lasted) for name, histogram in slot.timers.items()},
                    counts=dict(slot.counts),
                )
            )
        return tuple(intervals)

    def _index(self) -> int:
        return int(self._clock.monotonic() // SLOT)

    def _indices(self, seconds: float) -> range:
        last = self._index()
        wanted = min(SLOTS, max(1, math.ceil(seconds / SLOT)))
        return range(max(last - wanted + 1, int(self._begun // SLOT)), last + 1)

    def _last(self, seconds: float) -> Iterable[_Slot]:
        return [self._slots[index] for index in self._indices(seconds) if index in self._slots]

    def _covered(self, seconds: float) -> float:
        started = max(self._indices(seconds).start * SLOT, self._begun)
        return max(self._clock.monotonic() - started, 1.0)
