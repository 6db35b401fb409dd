"""Judges recorded histories of one channel: every follower saw every event exactly once, in the log's order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise

from tests.parts.follower import StreamRecord

SHOWN = 5


def violations(
    published: Mapping[int, str], records: Iterable[StreamRecord], *, maybe: Iterable[str] = ()
) -> list[str]:
    """What is wrong, one line each. `published`: number and data of what the log acknowledged; `maybe`: data whose
    publishing was not acknowledged, and which may therefore be there or not.

    A follower's history begins with its first event; numbers of a channel have no holes.
    """
    found = []
    allowed = set(maybe)
    told: dict[int, str] = dict(published)
    for number, record in enumerate(records):
        name = f"follower {number}"
        if not record.received:
            found.append(f"{name} heard nothing")
            continue
        numbers = [n for n, _ in record.received]
        wrong = [(a, b) for a, b in pairwise(numbers) if b != a + 1]
        if wrong:
            found.append(f"{name}: {len(wrong)} places out of order, twice or missing, the first {wrong[:SHOWN]}")
        missing = [n for n in published if n >= numbers[0] and n not in set(numbers)] if wrong else []
        late = [n for n in published if n > numbers[-1]]
        if missing or late:
            found.append(f"{name}: {len(missing)} lost, {len(late)} not yet there, such as {(missing + late)[:SHOWN]}")
        for n, data in record.received:
            known = told.setdefault(n, data)
            if known != data:
                found.append(f"{name}: event {n} is {data!r}, and {known!r} elsewhere")
            elif n not in published and data not in allowed:
                found.append(f"{name}: event {n}, {data!r}, was never published")
        if record.gaps:
            found.append(f"{name}: told of {len(record.gaps)} gaps, the first {record.gaps[0]}")
    return found
