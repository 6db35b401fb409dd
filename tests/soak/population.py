"""People with open streams, requests and events of their own at several servers, and what they were told."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import httpx

from tests.benchmarks.rows import percentile
from tests.parts.follower import Follower
from tests.parts.sample_server import SampleServer, User, signed_in
from tests.processes.event_history import violations
from tests.processes.session_history import SessionHistory
from tests.soak.findings import Findings, Usage
from tests.soak.lag import LagProbe
from tests.soak.soak import Soak

SIGN_INS_AT_A_TIME = 4
SIGN_IN_ATTEMPTS = 10
SIGN_IN_PAUSE = 1.0  # seconds between them
PROBE_EVERY = 2.0  # seconds between one person's requests
PUBLISH_EVERY = 1.5
OWN_LAG_EVERY = 0.1
ANSWERS = 5.0  # the longest a client waits for one
AFTERGLOW = 5.0  # seconds after a revival in which an answer may still be the old one
CATCH_UP = 60.0


@dataclass
class Person:
    """A user, their followers, and what they published."""

    user: User
    followers: list[Follower] = field(default_factory=list)
    published: dict[int, str] = field(default_factory=dict)
    maybe: list[str] = field(default_factory=list)
    """What may have been published: there was no answer, or one that does not say."""
    signing_in: asyncio.Lock = field(default_factory=asyncio.Lock)


class Population:
    """`users` people with `streams` followers each, spread over `servers`; they live as long as the `async with`."""

    def __init__(
        self, soak: Soak, servers: list[SampleServer], history: SessionHistory, *, users: int, streams: int
    ) -> None:
        self.people: list[Person] = []
        self.statuses: Counter[str] = Counter()
        self.unauthorized: list[str] = []
        self.lost_connections: Counter[str] = Counter()
        """Streams that ended without a word, and attempts that reached nobody."""
        self.signed_in_again = 0
        self._soak = soak
        self._random = soak.random
        self._servers = servers
        self._history = history
        self._users = users
        self._streams = streams
        self._client = httpx.AsyncClient(
            trust_env=False,
            verify=False,
            timeout=ANSWERS,
            limits=httpx.Limits(max_connections=500, max_keepalive_connections=100),
        )
        self._lag = [LagProbe(server) for server in servers]
        self._own_lag: list[float] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._checks: set[asyncio.Task[None]] = set()
        self._stack = AsyncExitStack()
        self._usage: dict[str, Usage] = {}

    async def __aenter__(self) -> Self:
        slots = asyncio.Semaphore(SIGN_INS_AT_A_TIME)

        async def arrive(number: int) -> None:
            async with slots:
                user = await self._signed_in(f"soak{number}", "/auth/login", first=number)
            self.people.append(Person(user))

        await asyncio.gather(*map(arrive, range(self._users)))
        for person in self.people:
            for number in range(self._streams):
                follower = Follower(
                    person.user.bearer,
                    choose=self._first_then_any(number),
                    sign_in=partial(self._sign_in_again, person),
                    random=self._random,
                )
                person.followers.append(await self._stack.enter_async_context(follower))
        for follower in self.followers:
            await follower.until(lambda one: one.port != 0, timeout=60)
        # A history begins with a first event.
        await asyncio.gather(*(self._publish(person) for person in self.people))
        self._usage = {server.name: Usage(server.memory(), server.descriptors()) for server in self._servers}
        for person in self.people:
            self._tasks.append(asyncio.create_task(self._probe(person)))
            self._tasks.append(asyncio.create_task(self._publish_on(person)))
        for probe in self._lag:
            await self._stack.enter_async_context(probe)
        self._tasks.append(asyncio.create_task(self._feel_own_lag()))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._end_tasks()
        await self._stack.__aexit__(kind, error, trace)
        await self._client.aclose()

    @property
    def followers(self) -> list[Follower]:
        """Of everybody."""
        return [follower for person in self.people for follower in person.followers]

    @property
    def open_streams(self) -> int:
        """Streams that are open now."""
        return sum(follower.port != 0 for follower in self.followers)

    async def recovered(self, *, timeout: float) -> float | None:
        """Seconds from now until every server answers somebody it cannot have in its cache, and an event that it
        publishes gets through; None where that takes longer than `timeout`."""
        begun = time.monotonic()
        try:
            async with asyncio.timeout(timeout):
                await asyncio.gather(*map(self._until_it_works, self._servers))
        except TimeoutError:
            return None
        return time.monotonic() - begun

    async def _until_it_works(self, server: SampleServer) -> None:
        """An attempt each half second: one that hangs says nothing of the next."""
        attempts: set[asyncio.Task[bool]] = set()
        try:
            while True:
                attempts.add(asyncio.create_task(self._works(server)))
                done, attempts = await asyncio.wait(attempts, timeout=0.5, return_when=asyncio.FIRST_COMPLETED)
                if any(attempt.result() for attempt in done):
                    return
                if done:
                    await asyncio.sleep(0.1)
        finally:
            for attempt in attempts:
                attempt.cancel()
            await asyncio.gather(*attempts, return_exceptions=True)

    async def finish(self, findings: Findings) -> None:
        """Stop publishing, let everybody catch up, and write down what was seen."""
        await self._end_tasks()
        deadline = time.monotonic() + CATCH_UP
        while time.monotonic() < deadline and not all(map(_has_all, self.people)):  # noqa: ASYNC110
            await asyncio.sleep(0.2)
        findings.events_published = sum(len(person.published) for person in self.people)
        for person in self.people:
            records = [follower.record for follower in person.followers]
            for text in violations(person.published, records, maybe=person.maybe):
                findings.must(False, f"{person.user.account}: {text}")
            for record in records:
                numbers = [n for n, _ in record.received]
                findings.events_doubled += len(numbers) - len(set(numbers))
                first = numbers[0] if numbers else 0
                findings.events_lost += len({n for n in person.published if n >= first} - set(numbers))
                self.lost_connections.update({name: record.ended.pop(name, 0) for name in ("cut", "unreachable")})
                findings.streams_closed.update(record.ended)
                self.statuses.update({f"stream {status}": count for status, count in record.statuses.items()})
        findings.refreshes = sum(self._history.refreshes.values())
        findings.doubles["outcome unknown"] = sum(self._history.reattempts.values())
        findings.sessions_lost = self._history.lost
        findings.failures += self._history.violations
        findings.unauthorized = len(self.unauthorized)
        findings.must(not self.unauthorized, f"401 to sessions that were alive: {self.unauthorized[:5]}")
        findings.must(self.statuses["stream 5030"] == 0, "503 without Retry-After")
        findings.usage = {
            server.name: (self._usage[server.name], Usage(server.memory(), server.descriptors()))
            for server in self._servers
        }
        lags = [seconds for probe in self._lag for seconds in probe.seconds]
        findings.loop_lag = percentile(lags, 99) * 1000
        findings.notes += [
            f"loop lag: p50 {percentile(lags, 50) * 1000:.1f} ms, worst {max(lags) * 1000:.0f} ms, "
            f"{len(lags)} answers; "
            f"{sum(probe.left_out for probe in self._lag)} left out, of a server that was away",
            f"the client's own lag, p99: {percentile(self._own_lag, 99) * 1000:.1f} ms",
            f"answers: {dict(sorted(self.statuses.items()))}",
            f"from the lease to the written result: {self._history.crash_window()}",
            f"signed in again: {self.signed_in_again}; connections: {dict(self.lost_connections)}",
        ]

    async def _end_tasks(self) -> None:
        tasks = [*self._tasks, *self._checks]
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(outcome, Exception):
                raise outcome

    def _first_then_any(self, number: int) -> Callable[[], int]:
        """The ports that a person's follower tries: their streams begin in all processes, and then go anywhere."""
        first = iter([self._servers[number % len(self._servers)].port])
        return lambda: next(first, None) or self._random.choice(self._servers).port

    async def _sign_in_again(self, person: Person, url: str | None) -> str:
        """The bearer that is good from now on; several followers may ask at once."""
        async with person.signing_in:
            row = self._history.rows.get(person.user.session_id)
            if row is not None and row.state == "active" and not row.gone:
                return person.user.bearer
            parts = urlsplit(url or "/auth/login")
            user = await self._signed_in(person.user.account, f"{parts.path}?{parts.query}")
            self.signed_in_again += 1
            if user.session_id != person.user.session_id:
                person.user = user
            return person.user.bearer

    async def _signed_in(self, account: str, path: str, *, first: int | None = None) -> User:
        """Somebody signed in, by way of one server or the next: people try again. `first`: the server to begin at."""
        start = self._random.randrange(len(self._servers)) if first is None else first
        for attempt in range(SIGN_IN_ATTEMPTS):
            server = self._servers[(start + attempt) % len(self._servers)]
            try:
                return await signed_in(server, account, start=f"{server.url}{path}")
            except (httpx.HTTPError, AssertionError, KeyError, ValueError) as error:
                self.statuses["sign-in failed"] += 1
                failure = error
            await asyncio.sleep(SIGN_IN_PAUSE)
        raise failure

    # -- what they do ----------------------------------------------------------------------------------------------

    async def _probe(self, person: Person) -> None:
        while True:
            await asyncio.sleep(PROBE_EVERY * self._random.uniform(0.5, 1.5))
            server = self._random.choice(self._servers)
            answer = await self._ask(person, "GET", server, "/me")
            if answer is not None and answer.status_code == 401:
                self._suspect(person)

    def _suspect(self, person: Person) -> None:
        """A 401: it is right where the row says so, of which the history may hear a little later."""
        task = asyncio.create_task(self._examine(person, person.user.session_id, time.monotonic()))
        self._checks.add(task)
        task.add_done_callback(self._checks.discard)

    async def _examine(self, person: Person, session_id: str, at: float) -> None:
        await asyncio.sleep(1.0)
        restored = self._history.restored_at.get(session_id)
        row = self._history.rows[session_id]
        if row.state == "active" and not row.gone and (restored is None or at - restored > AFTERGLOW):
            self.unauthorized.append(person.user.account)

    async def _publish_on(self, person: Person) -> None:
        while True:
            await asyncio.sleep(PUBLISH_EVERY * self._random.uniform(0.5, 1.5))
            await self._publish(person)

    async def _publish(self, person: Person) -> int | None:
        """Publish the person's next event, by way of somebody; its number, where that was acknowledged."""
        data = json.dumps({"by": person.user.account, "number": len(person.published) + len(person.maybe)})
        return await self._publish_at(self._random.choice(self._servers), person, data)

    async def _publish_at(self, server: SampleServer, person: Person, data: str) -> int | None:
        # Whatever becomes of this call, also where it is cancelled: the event may be there.
        person.maybe.append(data)
        answer = await self._ask(person, "POST", server, "/publish", data)
        if answer is None or answer.status_code != 202:
            return None
        person.maybe.remove(data)
        n = int(answer.json()["id"])
        person.published[n] = data
        return n

    async def _ask(
        self, person: Person, method: str, server: SampleServer, path: str, body: str | None = None
    ) -> httpx.Response | None:
        headers = {"Authorization": f"Bearer {person.user.bearer}", "Content-Type": "application/json"}
        try:
            answer = await self._client.request(method, f"{server.url}{path}", headers=headers, content=body)
        except httpx.TimeoutException:
            self.statuses[f"{path} time-out"] += 1
            return None
        except httpx.HTTPError:
            self.statuses[f"{path} unreachable"] += 1
            return None
        self.statuses[f"{path} {answer.status_code}"] += 1
        return answer

    async def _works(self, server: SampleServer) -> bool:
        """A request that must ask the store, which an unknown credential is for, and an event by way of this server."""
        headers = {"Authorization": f"Bearer {'A' * 43}"}
        try:
            answer = await self._client.get(f"{server.url}/me", headers=headers)
        except httpx.HTTPError:
            return False
        person = self._random.choice(self.people)
        if answer.status_code != 401:
            return False
        n = await self._publish_at(server, person, json.dumps({"recovered": time.time()}))
        if n is None:
            return False
        try:
            for follower in person.followers:
                await follower.until(lambda one: bool(one.last_event_id) and int(one.last_event_id) >= n, timeout=10)
        except AssertionError:
            return False
        return True

    async def _feel_own_lag(self) -> None:
        while True:
            begun = time.monotonic()
            await asyncio.sleep(OWN_LAG_EVERY)
            self._own_lag.append(time.monotonic() - begun - OWN_LAG_EVERY)


def _has_all(person: Person) -> bool:
    newest = max(person.published, default=0)
    return all(follower.last_event_id and int(follower.last_event_id) >= newest for follower in person.followers)
