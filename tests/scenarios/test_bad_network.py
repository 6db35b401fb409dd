"""A stream over a network that cuts, swallows and refuses: what comes through is every event, once, in order."""

from __future__ import annotations

import asyncio

import httpx

from tests.parts.sse_client import SSEClient
from tests.parts.tcp_proxy import TCPProxy
from tests.scenarios.server import Running, serve
from tests.streams.serving import until

ROUNDS = 6
EVENTS = 20  # in each state of the network


class Follower:
    """A client that comes back with the id of the last event it saw, as soon as it can."""

    def __init__(self, app: Running, proxy: TCPProxy, cookie: str) -> None:
        self.seen: list[int] = []
        self.connections = 0
        self._url = f"http://127.0.0.1:{proxy.port}/prices"
        self._headers = {"Host": app.url.removeprefix("http://"), "Cookie": cookie}
        self._last: str | None = None

    async def run(self) -> None:
        while True:
            try:
                async with SSEClient(self._url, headers=self._headers, last_event_id=self._last) as stream:
                    self.connections += 1
                    while True:
                        event = await stream.next("price", timeout=60)
                        self.seen.append(event.json())
                        self._last = event.id
            except (AssertionError, httpx.HTTPError, TimeoutError):
                await asyncio.sleep(0.01)


async def test_nothing_is_lost_and_nothing_doubled() -> None:
    """Cuts in the middle of events, bytes that vanish while the connection stays, a server that refuses; the server
    forgets each stream that was lost."""
    async with serve() as app, TCPProxy(int(app.url.rpartition(":")[2])) as proxy:
        _, credential = await app.auth.sessions.create(user_id="u1", scopes={"prices:read"})
        follower = Follower(app, proxy, f"{app.cookie}={credential.reveal()}")
        following = asyncio.create_task(follower.run())
        published = 0

        async def publish() -> None:
            nonlocal published
            for _ in range(EVENTS):
                await app.auth.events.publish("prices", published, event="price")
                published += 1
                await asyncio.sleep(0)

        try:
            await until(lambda: follower.connections and len(app.auth.registry))
            for round_ in range(ROUNDS):
                await publish()
                await until(lambda: len(follower.seen) == published)  # so that there is a place to come back to
                await publish()
                proxy.cut()
                await publish()
                if round_ % 2:
                    with proxy.blackhole():
                        await publish()
                else:
                    async with proxy.refuse():
                        await publish()
                await publish()
            await until(lambda: len(follower.seen) >= published)
            assert follower.seen == list(range(published))
            assert follower.connections > ROUNDS
        finally:
            following.cancel()
            await asyncio.wait({following})
        await until(lambda: not len(app.auth.registry) and not app.auth.registry.leaving)
        closed = {name: count for name, count in app.metrics.counters.items() if name.startswith("stream.closed.")}
        assert closed == {"stream.closed.client": app.metrics.counters["stream.opened"]}
