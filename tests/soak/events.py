"""One channel, published to through two processes as fast as they take it, while its followers move between them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from itertools import count
from random import Random

from tests.parts import mongod, provider
from tests.parts.follower import Follower
from tests.parts.sample_server import SampleServer, User, sample_servers, signed_in
from tests.processes.event_history import violations
from tests.soak.findings import Findings
from tests.soak.soak import Soak

DATABASE = "soak"
PUBLISHERS = 8
FOLLOWERS = 8
HANG_UP_EVERY = 0.05  # seconds
CATCH_UP = 30.0


@dataclass
class Channel:
    """What was published, and what its followers wrote down."""

    published: dict[int, str] = field(default_factory=dict)
    """Number and data of what was acknowledged."""
    maybe: list[str] = field(default_factory=list)
    """What was not, and may be there or not."""
    followers: list[Follower] = field(default_factory=list)

    def violations(self) -> list[str]:
        """What the checker says."""
        return violations(self.published, [one.record for one in self.followers], maybe=self.maybe)


async def run(soak: Soak) -> Findings:
    """Until the time is up."""
    findings = Findings(scenario=soak.scenario)
    with mongod.replica_set(1) as servers, provider.running() as issuer:
        async with sample_servers(issuer, [servers.uri] * 2, DATABASE) as pair:
            user = await signed_in(pair[0], "soak")
            soak.begin()
            channel = await exercise(
                pair, user, soak.random, (json.dumps({"number": n}) for n in count()), until=lambda: soak.over
            )
    found = channel.violations()
    findings.events_published = len(channel.published)
    for follower in channel.followers:
        numbers = [n for n, _ in follower.record.received]
        findings.events_doubled += len(numbers) - len(set(numbers))
        findings.events_lost += len({n for n in channel.published if n >= numbers[0]} - set(numbers))
        findings.streams_closed.update({reason: n for reason, n in follower.record.ended.items() if reason != "cut"})
    streams = sum(follower.record.statuses[200] for follower in channel.followers)
    findings.notes.append(
        f"{len(channel.published) / soak.elapsed:.0f} events a second, {len(channel.maybe)} refused, {streams} streams"
    )
    findings.failures += found
    return findings


async def exercise(
    pair: Sequence[SampleServer], user: User, random: Random, texts: Iterator[str], *, until: Callable[[], bool]
) -> Channel:
    """Publish `texts` through all of `pair`, while followers hang up at random and come back anywhere."""
    channel = Channel()
    async with AsyncExitStack() as stack:
        for _ in range(FOLLOWERS):
            follower = Follower(user.bearer, choose=lambda: random.choice(pair).port, random=random)
            channel.followers.append(await stack.enter_async_context(follower))
        for follower in channel.followers:
            await follower.until(lambda one: one.port != 0, timeout=CATCH_UP)
        # A history begins with a first event.
        await _publish(channel, user, pair[0], iter(["the first"]), lambda: False)
        for follower in channel.followers:
            await follower.until(lambda one: bool(one.record.received), timeout=CATCH_UP)
        restless = asyncio.create_task(_move_about(channel.followers, random))
        async with asyncio.TaskGroup() as group:
            for number in range(PUBLISHERS):
                group.create_task(_publish(channel, user, pair[number % len(pair)], texts, until))
        restless.cancel()
        newest = max(channel.published)
        for follower in channel.followers:
            await follower.until(lambda one: one.record.received[-1][0] >= newest, timeout=CATCH_UP)
    return channel


async def _publish(
    channel: Channel, user: User, server: SampleServer, texts: Iterator[str], until: Callable[[], bool]
) -> None:
    """One after the other, as long as there are any. A machine under load may refuse some: they may be there or not."""
    async with user.client(server) as client:
        for text in texts:
            if until():
                return
            answer = await client.post("/publish", content=json.dumps(text))
            if answer.status_code == 202:
                channel.published[int(answer.json()["id"])] = json.dumps(text)
            elif answer.status_code == 503:
                channel.maybe.append(json.dumps(text))
            else:
                raise server.failure(f"{answer.status_code} {answer.text}")


async def _move_about(followers: Sequence[Follower], random: Random) -> None:
    while True:
        await asyncio.sleep(HANG_UP_EVERY)
        random.choice(followers).hang_up()
