"""Nothing goes wrong for minutes: twenty sessions, three streams each, tokens of ten seconds.

The sample server is a process of its own with a real MongoDB and a real provider, and is only seen from outside: by
its streams, its log at DEBUG, the rows in the database, and what the provider counts.
"""

from __future__ import annotations

import asyncio
import base64
import os
import secrets
import signal
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from typing import Any

from pymongo import AsyncMongoClient

from tests.parts import mongod
from tests.parts import provider as oidc
from tests.parts.sample_server import SampleServer, signed_in
from tests.parts.sse_client import SSEClient
from tests.soak.findings import Findings, Usage
from tests.soak.soak import Soak
from tornado_sse_auth import Keyring, MongoSessionStore

# The sample at DEBUG, which no option of its own gives, and without the filter that would take out what had slipped in.
PROGRAM = """
import logging, sys
from sample_server import __main__ as program
from tornado_sse_auth import RequestIdFilter

def write_logs(_format):
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s [%(request_id)s] %(message)s"))
    handler.addFilter(RequestIdFilter())
    logging.basicConfig(handlers=[handler], level=logging.DEBUG)

program.write_logs = write_logs
sys.exit(program.main())
"""
FRACTION, JITTER = 0.9, 0.05  # of a token's life, when a refresh is due, as the defaults have it
TICK = 1.0  # up to which a refresh may be early
READ_EACH = 2.0  # seconds between looks at the tokens in the database


@dataclass(frozen=True, kw_only=True)
class Load:
    """How many, for how long; times in seconds."""

    seconds: float
    sessions: int = 20
    streams: int = 3
    access_ttl: int = 10
    driver: str = "motor"

    @property
    def shortest_period(self) -> float:
        """Between two refreshes of one session, whatever the number of its streams."""
        return self.access_ttl * (FRACTION - JITTER) - TICK

    @property
    def least_refreshes(self) -> int:
        """Of one session; one less than there are periods, for a machine that is late."""
        return int(self.seconds / (self.access_ttl * FRACTION)) - 1


@dataclass
class _Seen:
    """What came by: secrets that may stand nowhere, the streams with all their events."""

    secrets: set[str] = field(default_factory=set)
    streams: list[SSEClient] = field(default_factory=list)

    def told(self, event: str) -> list[list[Any]]:
        """The data of the events of that name, stream by stream."""
        return [[one.json() for one in stream.events if one.event == event] for stream in self.streams]


async def run(soak: Soak) -> Findings:
    """The long form, on parts of its own."""
    soak.tell("starting MongoDB and the provider")
    with mongod.shared() as servers:
        name = f"soak_steady_{secrets.token_hex(4)}"
        try:
            soak.begin()
            return await steady(Load(seconds=soak.seconds), servers.uri, name, soak.tell)
        finally:
            mongod.drop_database(servers.uri, name)


async def steady(load: Load, uri: str, database: str, tell: Callable[[str], None]) -> Findings:
    """Run it; progress goes to `tell`."""
    findings = Findings(scenario="steady")
    keys = base64.b64encode(os.urandom(32)).decode()
    seen = _Seen(secrets={keys})
    with oidc.running(access_ttl=load.access_ttl) as judge:
        async with _sample(load, uri, database, keys, judge) as server, AsyncMongoClient[Any](uri) as client:
            store = MongoSessionStore(client[database], Keyring.from_base64(keys))
            async with AsyncExitStack() as stack:
                accounts = [f"user{number}" for number in range(load.sessions)]
                for account in accounts:
                    await _open(server, account, load, seen, stack)
                before = Usage(server.memory(), server.descriptors())
                begun = (await judge.stats()).refreshes
                async with asyncio.TaskGroup() as group:
                    watching = group.create_task(_watch(store, judge, accounts, seen))
                    await _pass(load, judge, tell)
                    watching.cancel()
                now = (await judge.stats()).refreshes
                refreshes = [now.get(account, 0) - begun.get(account, 0) for account in accounts]
                findings.usage["the server"] = before, Usage(server.memory(), server.descriptors())
                _judge_streams(seen, findings)
                for stream in seen.streams:
                    await stream.close()
                closed = time.time()
            tell("the streams have gone; a period without a refresh")
            await asyncio.sleep(load.access_ttl + TICK)
            stats = await judge.stats()
            dump = await _dump(client[database])
            server.signal(signal.SIGTERM)
            status = await asyncio.to_thread(server.wait, 20)
    findings.refreshes = sum(refreshes)
    findings.doubles.update(stats.errors)
    findings.must((stats.errors, stats.grants_revoked) == ({}, 0), f"the provider refused a token: {stats}")
    findings.must(min(refreshes) >= load.least_refreshes, f"too few refreshes of a session: {refreshes}")
    late = max(stats.last_rotation.values()) - closed
    findings.must(late < 1.0, f"a token was refreshed {late:.2f} s after the last stream had gone")
    findings.must(status == 0, f"the server ended with status {status}")
    _judge_periods(server, load, findings)
    _judge_output(server, seen.secrets, dump, findings)
    return findings


@asynccontextmanager
async def _sample(load: Load, uri: str, database: str, keys: str, judge: oidc.Provider) -> AsyncIterator[SampleServer]:
    server = SampleServer(judge, uri, database, encryption_key=keys, driver=load.driver)
    server.command[1:3] = ["-c", PROGRAM]
    await asyncio.to_thread(server.start)
    try:
        await judge.add_redirect_uri(f"{server.url}/auth/callback")
        yield server
    finally:
        await asyncio.to_thread(server.kill)


async def _open(server: SampleServer, account: str, load: Load, seen: _Seen, stack: AsyncExitStack) -> None:
    user = await signed_in(server, account)
    seen.secrets |= {user.bearer, user.cookie.partition("=")[2]}
    for _ in range(load.streams):
        seen.streams.append(await stack.enter_async_context(user.stream(server)))


async def _watch(store: MongoSessionStore, judge: oidc.Provider, accounts: Sequence[str], seen: _Seen) -> None:
    """Every token that anybody could have written down."""
    while True:
        for account in accounts:
            for session in await store.find_by_user(f"{judge.issuer}|{account}"):
                assert session.token_set is not None
                assert session.token_set.refresh_token is not None
                seen.secrets |= {session.token_set.access_token.reveal(), session.token_set.refresh_token.reveal()}
        await asyncio.sleep(READ_EACH)


async def _pass(load: Load, judge: oidc.Provider, tell: Callable[[str], None]) -> None:
    until = time.monotonic() + load.seconds
    while (left := until - time.monotonic()) > 0:
        stats = await judge.stats()
        tell(f"{left:.0f} s to go, {sum(stats.refreshes.values())} refreshes, refused {stats.errors}")
        await asyncio.sleep(min(left, 1.0))


async def _dump(database: Any) -> str:
    names = await database.list_collection_names()
    return "\n".join([repr(document) for name in names async for document in database[name].find()])


# -- what must hold ----------------------------------------------------------------------------------------------------


def _judge_streams(seen: _Seen, findings: Findings) -> None:
    ended = [stream.events[-1].data for stream in seen.streams if stream.ended]
    findings.streams_closed.update(ended)
    findings.must(not ended, f"streams have ended: {ended}")
    for event in ("auth_required", "gap", "end"):
        findings.must(not any(seen.told(event)), f"somebody was told {event}")
    ticks = seen.told("tick")
    for told in ticks:
        numbers = [tick["seq"] for tick in told]
        findings.must(numbers == list(range(1, len(told) + 1)), f"ticks are missing or doubled: {numbers}")
    findings.must(all(tick["token_expires_in"] is not None for told in ticks for tick in told), "a token was missing")
    findings.notes.append(f"{sum(map(len, ticks))} ticks on {len(ticks)} streams")


def _judge_periods(server: SampleServer, load: Load, findings: Findings) -> None:
    """By the audit log: no two refreshes of a session come closer than a period."""
    times: dict[str, list[float]] = {}
    for line in server.audit():
        if line["event"] == "refresh":
            findings.must(line["outcome"] == "success", f"a refresh ended otherwise: {line}")
            times.setdefault(line["session_id"], []).append(datetime.fromisoformat(line["time"]).timestamp())
    gaps = [later - earlier for one in times.values() for earlier, later in pairwise(one)]
    findings.must(min(gaps) >= load.shortest_period, f"refreshed again after {min(gaps):.2f} s, which is no period")
    findings.notes.append(f"{min(gaps):.2f} to {max(gaps):.2f} s between two refreshes of a session")


def _judge_output(server: SampleServer, hidden: set[str], dump: str, findings: Findings) -> None:
    output = server.output
    findings.must(" DEBUG " in output, "nothing was logged at DEBUG")
    for word in ("Traceback", " ERROR ", " CRITICAL "):
        findings.must(word not in output, f"{word.strip()} in the log: {server.failure('')}")
    for place, text in (("the log", output), ("the database", dump)):
        shown = sum(secret in text for secret in hidden)
        findings.must(not shown, f"{shown} of {len(hidden)} secrets stand in {place}")
    findings.notes.append(f"{len(hidden)} secrets are in none of {output.count(chr(10))} log lines")
