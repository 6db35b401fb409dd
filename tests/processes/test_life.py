"""From start to end: several processes behind one port, one that takes another's place, and what a signal does."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import secrets
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from random import Random
from typing import Any

import httpx
import pytest
from pymongo import MongoClient

from tests.parts import provider as oidc
from tests.parts.follower import Follower
from tests.parts.mongod import ExternalMongo, ReplicaSet
from tests.parts.sample_server import ProviderAddress, SampleServer, User, signed_in
from tests.parts.scripted_provider import Answer, ScriptedProvider
from tests.parts.statsd import StatsDListener
from tests.processes.event_history import violations

Servers = ReplicaSet | ExternalMongo
KEY = base64.b64encode(secrets.token_bytes(32)).decode()


@asynccontextmanager
async def started(
    provider: ProviderAddress, mongod: Servers, database: str, *options: str, beside: SampleServer | None = None
) -> AsyncIterator[SampleServer]:
    server = SampleServer(provider, mongod.uri, database, *options, encryption_key=KEY, beside=beside)
    try:
        await asyncio.to_thread(server.start)
        yield server
    finally:
        server.kill()


def children(server: SampleServer) -> set[int]:
    """The processes of a parent, by the kernel's word."""
    return set(map(int, Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()))


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


async def until(condition: Any, *, seconds: float = 20.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - what it waits for is another process
            await asyncio.sleep(0.05)


async def test_processes_behind_one_port(
    provider: oidc.Provider, mongod: Servers, database_name: str, account: str, statsd: StatsDListener
) -> None:
    """One introduction, a gauge each; one that dies or is sent away is replaced while the others serve; SIGTERM to the
    parent alone ends all with status 0."""
    told = f"--statsd=127.0.0.1:{statsd.port}"
    async with started(provider, mongod, database_name, "--processes=3", told) as server:
        await provider.add_redirect_uri(f"{server.url}/auth/callback")
        user = await signed_in(server, account)
        before = children(server)
        assert len(before) == 3

        victim = min(before)
        os.kill(victim, signal.SIGKILL)
        server.wait_for_line(r"process \d ended with signal 9")
        for _ in range(20):  # each on a connection of its own, while the place is empty
            async with user.client(server) as client:
                assert (await client.get("/me")).status_code == 200
        await until(lambda: len(children(server)) == 3)
        now = children(server)
        assert before - now == {victim}
        leaving = max(before)
        os.kill(leaving, signal.SIGTERM)  # this one alone, after it has drained
        server.wait_for_line(r"process \d ended with status 0", 30)
        await until(lambda: len(children(server)) == 3)
        now = children(server)
        assert leaving not in now
        assert server.output.count("The sample server is at") == 1
        assert "at /sse, must stay with one process" in server.output

        os.kill(server.pid, signal.SIGTERM)
        assert await asyncio.to_thread(server.wait, 30) == 0
        assert all(map(is_gone, now))
        assert "Traceback" not in server.output
        for number in range(3):  # at the latest as they end
            await statsd.wait_for(f"tornado_sse_auth.stream.open.{number}")
        assert not statsd.samples("tornado_sse_auth.stream.open")


async def test_processes_end_with_their_parent(provider: oidc.Provider, mongod: Servers, database_name: str) -> None:
    """A parent that is killed takes nobody's port along for ever; a signal to the whole group (Ctrl-C, a supervisor
    that knows no better) is no second one."""
    async with started(provider, mongod, database_name, "--processes=2") as server:
        orphans = children(server)
        os.kill(server.pid, signal.SIGKILL)
        await until(lambda: all(map(is_gone, orphans)), seconds=30)
    async with started(provider, mongod, database_name, "--processes=2") as server:
        server.signal(signal.SIGINT)
        assert await asyncio.to_thread(server.wait, 30) == 0


def test_processes_that_cannot_start_say_so_once(provider: oidc.Provider, database_name: str) -> None:
    """A configuration that no process can work with ends the parent with its status, not with restarts for ever."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        uri = f"mongodb://127.0.0.1:{nobody.getsockname()[1]}/?replicaSet=rs0&serverSelectionTimeoutMS=500"
        server = SampleServer(provider, uri, database_name, "--processes=2", encryption_key=KEY)
        with pytest.raises(AssertionError, match="ended with status 1"):
            server.start()
    assert "MongoDB does not answer where --mongodb-uri says" in server.output
    assert "Traceback" not in server.output


async def test_a_second_signal_ends_at_once(
    provider: oidc.Provider, mongod: Servers, database_name: str, account: str
) -> None:
    """REL-19: without waiting for anybody, and with a status that says so."""
    for options in ((), ("--processes=2",)):
        async with started(provider, mongod, database_name, *options) as server:
            await provider.add_redirect_uri(f"{server.url}/auth/callback")
            user = await signed_in(server, account)
            async with AsyncExitStack() as stack:
                streams = [await stack.enter_async_context(user.stream(server)) for _ in range(20)]
                for stream in streams:
                    await stream.next("open")
                os.kill(server.pid, signal.SIGTERM)
                await streams[0].next("end")
                os.kill(server.pid, signal.SIGTERM)
                assert await asyncio.to_thread(server.wait, 5) == 1
                assert any(stream.events[-1].event != "end" for stream in streams)


async def test_a_refresh_under_way_is_written(
    scripted_provider: ScriptedProvider, mongod: Servers, database_name: str
) -> None:
    """REL-19: the provider answers three seconds after SIGTERM; the row has the new token set when the process ends,
    which it does within fifteen."""
    scripted_provider.expires_in = 4
    scripted_provider.script("token", Answer(), Answer(delay=3.0))
    async with started(scripted_provider, mongod, database_name) as server:
        user = await signed_in(server, "slow")
        async with user.stream(server) as stream:
            await stream.next("open")
            await scripted_provider.wait_for_calls("token", grant_type="refresh_token")
            server.signal(signal.SIGTERM)
            await stream.next("end")
            assert await asyncio.to_thread(server.wait, 15) == 0
        row = await asyncio.to_thread(read_row, mongod.uri, database_name, user.session_id)
    assert (row["token_version"], row["state"], row["refresh"]["owner"]) == (2, "active", None)
    assert len(scripted_provider.calls("token", grant_type="refresh_token")) == 1


def read_row(uri: str, database: str, session_id: str) -> dict[str, Any]:
    with MongoClient[dict[str, Any]](uri) as client:
        row = client[database]["sessions"].find_one({"_id": session_id})
    assert row is not None
    return row


@asynccontextmanager
async def publishing(user: User, server: SampleServer) -> AsyncIterator[tuple[dict[int, str], list[str]]]:
    """Something is published each 30 ms, each on a connection of its own: what was acknowledged, what may be there."""
    published: dict[int, str] = {}
    maybe: list[str] = []

    async def publish() -> None:
        for number in range(1_000_000):
            data = json.dumps({"number": number})
            try:
                async with user.client(server) as client:
                    answer = await client.post("/publish", content=data)
                    published[int(answer.raise_for_status().json()["id"])] = data
            except httpx.HTTPError:
                maybe.append(data)
            await asyncio.sleep(0.03)

    task = asyncio.create_task(publish())
    try:
        yield published, maybe
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_a_rolling_restart(provider: oidc.Provider, mongod: Servers, database_name: str, account: str) -> None:
    """REL-18, REL-19: the new process comes up beside the old on the same port; readiness goes first, then the old
    one's streams end one by one, each with a `retry` of its own; clients find the new one at the first attempt and
    resume, and nobody misses an event or sees one twice."""
    async with AsyncExitStack() as stack:
        old = await stack.enter_async_context(started(provider, mongod, database_name))
        await provider.add_redirect_uri(f"{old.url}/auth/callback")
        user = await signed_in(old, account)
        kept_alive = httpx.Limits(max_connections=1, keepalive_expiry=60)
        probe = await stack.enter_async_context(
            httpx.AsyncClient(base_url=old.url, trust_env=False, limits=kept_alive, timeout=10)
        )
        published, maybe = await stack.enter_async_context(publishing(user, old))
        streams = [await stack.enter_async_context(user.stream(old)) for _ in range(8)]
        followers = [
            await stack.enter_async_context(Follower(user.bearer, choose=lambda: old.port, random=Random(number)))
            for number in range(20)
        ]
        for follower in followers:
            await follower.until(lambda one: len(one.record.received) > 2, timeout=30)
        assert (await probe.get("/readyz")).status_code == 200  # the connection stays with the old process

        new = await stack.enter_async_context(started(provider, mongod, database_name, beside=old))
        assert (await probe.get("/readyz")).status_code == 200
        assert not any(follower.record.ended for follower in followers)
        old.signal(signal.SIGTERM)
        await until_unready(probe)
        assert not any(stream.ended for stream in streams)
        assert not any(follower.record.ended for follower in followers)
        assert await asyncio.to_thread(old.wait, 40) == 0

        for stream in streams:
            assert (await stream.next("end")).json() == {"reason": "server_shutdown"}
        retries = {stream.retry for stream in streams}
        assert len(retries) > 1
        assert all(retry is not None and 1000 <= retry <= 5000 for retry in retries)
        at_new = len(published)
        await until(lambda: len(published) > at_new + 5)
        newest = max(published)
        for follower in followers:
            await follower.until(lambda one: bool(one.last_event_id) and int(one.last_event_id) >= newest, timeout=30)
        seen = {number: data for number, data in published.items() if number <= newest}
        records = [follower.record for follower in followers]
        assert violations(seen, records, maybe=[*maybe, *published.values()]) == []
        assert {str(dict(record.ended)) for record in records} == {"{'server_shutdown': 1}"}
        assert {str(dict(record.statuses)) for record in records} == {"{200: 2}"}
        assert len(maybe) <= 2  # a connection that stood in the old one's queue as it stopped listening
        assert await asyncio.to_thread(new.stop, 30) == 0


async def until_unready(probe: httpx.AsyncClient) -> None:
    async with asyncio.timeout(10):
        while (answer := await probe.get("/readyz")).status_code == 200:
            pass
    assert answer.status_code == 503
    assert answer.json()["status"] == "fail"
