"""One channel, published to and followed in several processes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import AsyncExitStack
from random import Random

from tests.parts.follower import Follower
from tests.parts.sample_server import SampleServer, User, signed_in
from tests.processes.conftest import Pair
from tests.processes.event_history import violations

EVENTS = 2000
PUBLISHERS = 8
FOLLOWERS = 8
HANG_UP_EVERY = 0.05  # seconds


async def test_every_follower_sees_every_event_once_and_in_order(pair: Pair, account: str) -> None:
    """Published through both processes at once, while streams move between them at random; judged by what each follower
    wrote down."""
    random = Random(account)
    user = await signed_in(pair.servers[0], account)
    published: dict[int, str] = {}
    maybe: list[str] = []
    async with AsyncExitStack() as stack:
        followers = [
            await stack.enter_async_context(
                Follower(user.bearer, choose=lambda: random.choice(pair.servers).port, random=random)
            )
            for _ in range(FOLLOWERS)
        ]
        for follower in followers:
            await follower.until(lambda one: one.port != 0, timeout=20)
        await publish(user, pair.servers[0], iter(["the first"]), published, maybe)
        for follower in followers:
            await follower.until(lambda one: bool(one.record.received), timeout=20)
        restless = asyncio.create_task(move_about(followers, random))
        texts = iter([json.dumps({"number": number}) for number in range(EVENTS)])
        async with asyncio.TaskGroup() as group:
            for number in range(PUBLISHERS):
                group.create_task(publish(user, pair.servers[number % 2], texts, published, maybe))
        restless.cancel()
        for follower in followers:
            await follower.until(lambda one: one.record.received[-1][0] >= max(published), timeout=30)
    assert len(published) + len(maybe) == EVENTS + 1
    assert len(published) > EVENTS / 2
    assert violations(published, [follower.record for follower in followers], maybe=maybe) == []
    assert sum(follower.record.statuses[200] for follower in followers) > 2 * FOLLOWERS


async def publish(
    user: User, server: SampleServer, texts: Iterator[str], published: dict[int, str], maybe: list[str]
) -> None:
    """One after the other, as long as there are any. A machine under load may refuse some: they may be there or not."""
    async with user.client(server) as client:
        for text in texts:
            answer = await client.post("/publish", content=json.dumps(text))
            if answer.status_code == 202:
                published[int(answer.json()["id"])] = json.dumps(text)
            else:
                assert answer.status_code == 503, server.failure(answer.text)
                maybe.append(json.dumps(text))


async def move_about(followers: list[Follower], random: Random) -> None:
    while True:
        await asyncio.sleep(HANG_UP_EVERY)
        random.choice(followers).hang_up()
