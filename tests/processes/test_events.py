"""One channel, published to and followed in several processes."""

from __future__ import annotations

import json
from random import Random

from tests.parts.sample_server import signed_in
from tests.processes.conftest import Pair
from tests.soak import events

EVENTS = 1000


async def test_every_follower_sees_every_event_once_and_in_order(pair: Pair, account: str) -> None:
    """Published through both processes at once, while streams move between them at random; judged by what each follower
    wrote down. `python -m tests.soak --scenario events` does it for minutes."""
    user = await signed_in(pair.servers[0], account)
    texts = iter([json.dumps({"number": number}) for number in range(EVENTS)])
    channel = await events.exercise(pair.servers, user, Random(account), texts, until=lambda: False)
    assert len(channel.published) + len(channel.maybe) == EVENTS + 1
    assert len(channel.published) > EVENTS / 2
    assert channel.violations() == []
    assert sum(follower.record.statuses[200] for follower in channel.followers) > 2 * len(channel.followers)
