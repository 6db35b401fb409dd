"""`python -m tests.benchmarks.scale`: what a refresh and a foreign change cost, and what a million streams come to.

The figures of a stream (memory, opening, an event) are those of `python -m tests.benchmarks opening fan-out`: give them
by the options, in the units of its table.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections import Counter
from dataclasses import dataclass
from statistics import median
from typing import Any

from pymongo import AsyncMongoClient, MongoClient
from pymongo.monitoring import CommandFailedEvent, CommandListener, CommandStartedEvent, CommandSucceededEvent

from tests.benchmarks.progress import progress
from tests.parts import mongod, provider
from tests.scenarios.server import serve
from tornado_sse_auth import Keyring, MongoSessionStore, OAuthProvider
from tornado_sse_auth.sessions import refreshed_identity

ACCOUNTS = 20
ROUNDS = 10
CHANGES = 20_000
DATABASE = "benchmark_scale"
HEARTBEAT = 15.0
DUE = 0.875  # of a token's life: 0.9, up to 0.05 earlier
TOUCH = 3600.0
STREAMS_BACK = 500.0  # a second and process, by the streams' own `retry`


class Commands(CommandListener):
    """Counts what is sent to MongoDB, without the driver's own questions and the waiting of change streams."""

    def __init__(self) -> None:
        self.sent: Counter[str] = Counter()

    def started(self, event: CommandStartedEvent) -> None:
        if event.command_name not in ("hello", "getMore", "ping"):
            self.sent[event.command_name] += 1

    def succeeded(self, event: CommandSucceededEvent) -> None:
        """Nothing more to count."""

    def failed(self, event: CommandFailedEvent) -> None:
        """Nothing more to count."""


@dataclass(frozen=True)
class Costs:
    """CPU in seconds, commands as a number."""

    refresh_cpu: float
    refresh_commands: float
    change_cpu: float


async def measure(uri: str, issuer: provider.Provider) -> Costs:
    """A refresh with everything that belongs to it (ID token, userinfo, both writes), and a change of a session that
    has no stream in this process."""
    commands = Commands()
    async with AsyncMongoClient[dict[str, Any]](uri, event_listeners=[commands]) as client:
        store = MongoSessionStore(client[DATABASE], Keyring.generate())
        upstream = OAuthProvider(issuer=issuer.issuer, client_id=issuer.client_id, client_secret=issuer.client_secret)
        async with serve(store, upstream) as app:
            await issuer.add_redirect_uri(f"{app.url}/auth/callback")
            for number in range(ACCOUNTS):
                progress(f"sign-in {number + 1} of {ACCOUNTS}")
                await provider.sign_in(f"{app.url}/auth/login", account=f"user{number}")
            sessions = [
                (await app.auth.sessions.sessions_of(f"{issuer.issuer}|user{number}"))[0] for number in range(ACCOUNTS)
            ]
            assert app.auth.refresher is not None
            costs, sent = [], []
            for number in range(ROUNDS):
                progress(f"refreshes, round {number + 1} of {ROUNDS}")
                commands.sent.clear()
                begun = time.process_time()
                for position, session in enumerate(sessions):
                    sessions[position] = await app.auth.refresher.attempt(session.id, session.token_version)
                costs.append((time.process_time() - begun) / ACCOUNTS)
                sent.append(commands.sent.total() / ACCOUNTS)
            return Costs(median(costs), median(sent), await _foreign_changes(uri, store, sessions[0].id))


async def _foreign_changes(uri: str, store: MongoSessionStore, template: str) -> float:
    """CPU of this process for one change that another process makes."""
    heard = 0
    all_heard = asyncio.Event()

    def listen(_: object) -> None:
        nonlocal heard
        heard += 1
        if heard >= CHANGES:
            all_heard.set()

    def insert() -> None:
        with MongoClient[dict[str, Any]](uri) as client:
            sessions = client[DATABASE]["sessions"]
            row = sessions.find_one({"_id": template})
            assert row is not None
            row["credentials"] = []
            copies = [{**row, "_id": f"copy{number}", "user_id": "copy"} for number in range(CHANGES)]
            for copy in copies:
                del copy["credentials"]
            sessions.insert_many(copies)

    def change() -> None:
        with MongoClient[dict[str, Any]](uri) as client:
            client[DATABASE]["sessions"].update_many({"user_id": "copy"}, {"$inc": {"version": 1}})

    await asyncio.to_thread(insert)
    await asyncio.sleep(1.0)  # the feed is past the inserts, of which it tells nothing
    stop = store.subscribe(listen)
    progress(f"{CHANGES} changes of other processes")
    begun = time.process_time()
    await asyncio.to_thread(change)
    async with asyncio.timeout(120):
        await all_heard.wait()
    stop()
    return (time.process_time() - begun) / CHANGES


def sheet(costs: Costs, given: argparse.Namespace) -> str:
    """The arithmetic, as Markdown."""
    streams, processes = given.streams, given.streams / given.streams_a_process
    refreshes = streams / given.sessions_share / (DUE * given.token_life)
    sessions = streams / given.sessions_share
    changes = 2 * refreshes
    beats = streams / HEARTBEAT
    cpu_refresh = refreshes * costs.refresh_cpu
    cpu_beats = beats * given.event_us * 1e-6
    cpu_feed = changes * costs.change_cpu
    rows = [
        ("processes", f"{processes:.0f}", f"{given.streams_a_process} streams each"),
        (
            "memory",
            f"{(streams * given.stream_kib / 2**20 + processes * given.process_mib / 2**10):.0f} GiB",
            f"{given.stream_kib:g} KiB a stream, {given.process_mib:g} MiB a process",
        ),
        ("refreshes", f"{refreshes:.0f}/s", f"tokens of {given.token_life:g} s, at {DUE:g} of their life"),
        ("CPU for refreshes", f"{cpu_refresh:.2f} cores", f"{costs.refresh_cpu * 1e3:.2f} ms each"),
        ("CPU for heartbeats", f"{cpu_beats:.2f} cores", f"{beats:.0f}/s, {given.event_us:g} µs each"),
        (
            "CPU for foreign changes",
            f"{processes * cpu_feed:.2f} cores",
            f"{changes:.0f}/s to each process, {costs.change_cpu * 1e6:.0f} µs each: {100 * cpu_feed:.1f} % of a core",
        ),
        ("CPU a process, quiet", f"{100 * ((cpu_refresh + cpu_beats) / processes + cpu_feed):.1f} %", "of one core"),
        (
            "MongoDB commands for refreshes",
            f"{refreshes * costs.refresh_commands:.0f}/s",
            f"{costs.refresh_commands:.1f} a refresh",
        ),
        ("MongoDB commands for sessions in use", f"{2 * sessions / TOUCH:.0f}/s", "one read and one write an hour"),
        ("changes that MongoDB tells", f"{processes * changes:.0f}/s", "each of them to each process"),
        (
            "one process replaced",
            f"{given.streams_a_process / STREAMS_BACK:.0f} s",
            f"until its streams are back; {STREAMS_BACK:.0f} look-ups/s, "
            f"{100 * STREAMS_BACK * given.opening_us * 1e-6:.0f} % of a core to open them",
        ),
    ]
    lines = ["| what | comes to | from |", "|---|---|---|"]
    return "\n".join([*lines, *(f"| {name} | {value} | {source} |" for name, value, source in rows)])


def main() -> int:
    """Measure, and do the sum."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.scale", description=__doc__)
    parser.add_argument("--streams", type=int, default=1_000_000)
    parser.add_argument("--streams-a-process", type=int, default=20_000)
    parser.add_argument("--sessions-share", type=float, default=1.0, help="streams a session")
    parser.add_argument("--token-life", type=float, default=3600.0, help="seconds")
    parser.add_argument("--stream-kib", type=float, required=True, help="memory of an open stream")
    parser.add_argument("--process-mib", type=float, default=92.0, help="memory of a process without streams")
    parser.add_argument("--opening-us", type=float, required=True, help="CPU to open a stream")
    parser.add_argument("--event-us", type=float, required=True, help="CPU of an event or heartbeat to one stream")
    given = parser.parse_args()
    refreshed_identity.ENRICH_INTERVAL = 0.0  # tokens of ten minutes and more: userinfo is asked with each refresh
    with mongod.shared() as servers, provider.running() as issuer:
        try:
            costs = asyncio.run(measure(servers.uri, issuer))
        finally:
            mongod.drop_database(servers.uri, DATABASE)
    progress()
    print(sheet(costs, given))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
