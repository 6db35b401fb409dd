"""Following a channel: encoded once, slow consumers out, replay without loss or double."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from itertools import pairwise
from typing import Any

import pytest

from tests.streams.serving import serving, until
from tests.streams.sse import connect
from tornado_sse_auth.errors import StoreUnavailableError
from tornado_sse_auth.events import LogRange, MemoryEventLog
from tornado_sse_auth.events.base import EventListener
from tornado_sse_auth.streams import hub as hub_module
from tornado_sse_auth.streams.event import encode


class FaultyLog(MemoryEventLog):
    """A memory log whose connection can be lost: listeners hear nothing meanwhile, reads fail."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.lost = False
        self.reads = 0
        self.heard: list[EventListener] = []
        self.before_read: list[str] = []  # published just before each read
        self.after_read: list[str] = []  # published, and heard, before each read returns

    def subscribe(self, channel: str, listener: EventListener) -> Any:
        self.heard.append(listener)
        return super().subscribe(channel, lambda event: None if self.lost else listener(event))

    async def read(self, channel: str, after: int, *, limit: int = 256) -> LogRange:
        self.reads += 1
        await asyncio.sleep(0)
        if self.lost:
            raise StoreUnavailableError
        if after != hub_module.BEYOND and self.before_read:
            await self.publish(channel, self.before_read.pop(0))
        found = await super().read(channel, after, limit=limit)
        if after != hub_module.BEYOND and self.after_read:
            await self.publish(channel, self.after_read.pop(0))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        return found


async def test_an_event_is_encoded_once_for_all_and_a_slow_consumer_delays_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """REL-20."""
    encoded: list[str] = []

    def counting(data: str, **fields: Any) -> bytes:
        encoded.append(data)
        return encode(data, **fields)

    monkeypatch.setattr(hub_module, "encode", counting)
    async with serving() as server, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connect(server.port)) for _ in range(20)]
        slow = await stack.enter_async_context(connect(server.port, limit=65_536))
        for client in clients:
            await (await client.request()).event()
        await slow.request()
        await until(lambda: len(server.streams) == 21)
        ids: list[str] = []
        text = "x" * 100_000
        readers = [asyncio.create_task(client.event()) for client in clients]
        while server.streams[20].ended is None:
            assert len(ids) < 200
            ids.append(str(await server.log.publish("news", text)))
            events = await asyncio.gather(*readers)
            assert {event.id for event in events} == {ids[-1]}
            assert server.streams[20]._opened.queued <= server.options.max_stream_buffer + 101_000
            readers = [asyncio.create_task(client.event()) for client in clients]
        assert server.streams[20].ended == "slow_consumer"
        assert len(encoded) == len(ids)
        await until(lambda: not server.registry.leaving)
        await slow.gone()
        assert len(server.registry) == 20
        await server.log.publish("news", "last")
        assert {event.data for event in await asyncio.gather(*readers)} == {"last"}


async def test_one_event_above_the_limit_is_no_slow_consumer() -> None:
    async with serving(max_stream_buffer=1024) as server, connect(server.port) as client:
        await (await client.request()).event()
        await server.log.publish("news", "x" * 1_000_000)
        assert len((await client.event()).data) == 1_000_000


async def test_replay_meets_live_without_gap_or_double() -> None:
    """What is published while the replay reads comes by the one way or the other; what comes by both is sent once."""
    log = FaultyLog()
    async with serving(log=log) as server, connect(server.port) as other, connect(server.port) as client:
        first = await log.publish("news", "0")
        await (await other.request()).event()
        log.after_read = ["1", "2"]
        log.before_read = ["a", "b", "c", "d"]
        await client.request(Last_Event_ID=str(first))
        await client.event()
        await until(lambda: len(server.hub._feeds["news"]._live) == 2)
        await log.publish("news", "live")
        events = [await client.event()]
        while events[-1].data != "live":
            events.append(await client.event())
        assert [int(event.id) - first for event in events] == list(range(1, len(events) + 1))
        assert {"1", "2", "a", "b", "c"} <= {event.data for event in events}
        assert [(await other.event()).data for _ in events] == [event.data for event in events]


@pytest.mark.parametrize("size", [50, 5000])
async def test_reconnecting_under_publishing_has_no_gap_and_no_double(size: int) -> None:
    """Again and again at random places while events come; some places are further back than one read."""
    async with serving(log=FaultyLog(size=100_000)) as server:
        log = server.log
        last = await log.publish("news", "0")
        newest = last
        stop = asyncio.Event()

        async def publish() -> None:
            nonlocal newest
            while not stop.is_set():
                # Now far ahead of the client, now level with it.
                for _ in range(600 if newest % 2 else 3):
                    newest = await log.publish("news", "x" * size)
                await until(lambda: newest <= last + 2 or stop.is_set())  # noqa: B023

        publishing = asyncio.create_task(publish())
        for round_ in range(24):
            async with connect(server.port) as client:
                await client.request(Last_Event_ID=str(last))
                assert (await client.event()).event == "open"
                for _ in range((7, 300, 64)[round_ % 3]):
                    event = await client.event()
                    assert event.event == "message"
                    assert int(event.id) == last + 1
                    last += 1
        stop.set()
        await publishing
        await until(server.freed)


async def test_without_an_id_a_stream_starts_live() -> None:
    async with serving() as server, connect(server.port) as client:
        await server.log.publish("news", "old")
        await client.request()
        assert (await client.event()).event == "open"
        await server.log.publish("news", "new")
        assert (await client.event()).data == "new"


@pytest.mark.parametrize("requested", ["x" * 10_000, "1", "9" * 19, "99999999999999999999", "-5"])
async def test_an_id_the_log_does_not_hold_gives_a_gap(requested: str) -> None:
    """SEC-48: told once, then everything that the log has, then live."""
    async with serving() as server, connect(server.port) as client:
        oldest = await server.log.publish("news", "a")
        await server.log.publish("news", "b")
        await client.request(Last_Event_ID=requested)
        gap = await client.named("gap")
        known = int(requested) if requested.isdigit() and int(requested) < 2**63 else None
        assert json.loads(gap.data) == {"requested": known, "oldest": oldest}
        assert [(await client.event()).data for _ in range(2)] == ["a", "b"]
        await server.log.publish("news", "c")
        assert (await client.event()).data == "c"


async def test_a_gap_in_an_empty_log_and_live_from_there() -> None:
    async with serving() as server, connect(server.port) as client:
        await client.request(Last_Event_ID="12345")
        assert json.loads((await client.named("gap")).data) == {"requested": 12345, "oldest": 0}
        await until(lambda: server.hub._feeds["news"]._live)
        await server.log.publish("news", "a")
        assert (await client.event()).data == "a"


async def test_what_was_published_during_a_loss_is_read_afterwards() -> None:
    """A lost connection, told by `None` or seen by a jump; before and after the first event."""
    log = FaultyLog()
    async with serving(log=log) as server, connect(server.port) as client:
        await server.log.publish("news", "before anybody came")
        await (await client.request()).event()
        await until(lambda: server.hub._feeds["news"]._locating is None)
        for number in range(3):
            log.lost = True
            await log.publish("news", f"lost {number}")
            await asyncio.sleep(0)
            if number == 1:  # the news of the loss comes while reads still fail
                reads = log.reads
                log.heard[0](None)
                await until(lambda: log.reads > reads + 1)  # noqa: B023
            log.lost = False
            if number == 0:
                log.heard[0](None)
            assert number == 2 or (await client.event()).data == f"lost {number}"
            await log.publish("news", f"heard {number}")
            if number == 2:
                assert (await client.event()).data == "lost 2"
            assert (await client.event()).data == f"heard {number}"


async def test_a_channel_that_expired_and_began_anew_is_no_gap() -> None:
    async with serving(log=MemoryEventLog(size=1)) as server, connect(server.port) as client:
        await (await client.request()).event()
        await server.log.publish("news", "a")
        assert (await client.event()).data == "a"
        server.log._channels.clear()  # type: ignore[attr-defined]
        await server.log.publish("news", "b")
        received = await client.event()
        assert (received.event, received.data) == ("message", "b")


async def test_a_ring_that_turns_over_during_a_slow_replay_is_told() -> None:
    async with serving(log=FaultyLog(size=300), max_stream_buffer=1024) as server:
        first = await server.log.publish("news", "0")
        for _ in range(299):
            await server.log.publish("news", "x" * 50_000)
        async with connect(server.port, limit=65_536) as client:
            await client.request(Last_Event_ID=str(first))
            await until(lambda: server.streams and server.streams[0]._opened.queued > 1024)
            for _ in range(400):
                await server.log.publish("news", "y")
            seen = [await client.event()]
            while seen[-1].data != "end of it":
                if len(seen) == 3:
                    await server.log.publish("news", "end of it")
                seen.append(await client.event())
            ids = [int(event.id) for event in seen if event.event == "message"]
            gaps = [event for event in seen if event.event == "gap"]
            assert len(gaps) == 1
            assert ids == sorted(set(ids))
            assert sum(1 for one, two in pairwise(ids) if two != one + 1) == 1


async def test_what_comes_while_a_loss_is_made_up_for_is_read_as_well() -> None:
    log = FaultyLog()
    async with serving(log=log) as server, connect(server.port) as client:
        await (await client.request()).event()
        await log.publish("news", "a")
        assert (await client.event()).data == "a"
        log.after_read = ["b", "c"]
        log.heard[0](None)
        assert [(await client.event()).data for _ in range(2)] == ["b", "c"]
        await until(lambda: server.hub._feeds["news"]._catching_up is None)
        assert log.reads == 4, "one for the place, three to find nothing more"


async def test_what_was_heard_and_has_expired_since_is_a_gap() -> None:
    log = FaultyLog()
    async with serving(log=log) as server, connect(server.port) as other, connect(server.port) as client:
        await (await other.request()).event()
        first = await log.publish("news", "a")
        await log.publish("news", "b")
        assert [(await other.event()).data for _ in range(2)] == ["a", "b"]
        log._channels.clear()
        await client.request(Last_Event_ID=str(first))
        assert json.loads((await client.named("gap")).data) == {"requested": first, "oldest": 0}
        await until(lambda: len(server.hub._feeds["news"]._live) == 2)
        await log.publish("news", "c")
        assert (await client.event()).data == "c"
        assert (await other.event()).data == "c"
