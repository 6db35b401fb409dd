"""The faults, each brought about on real parts, and what was seen of it from outside."""

from __future__ import annotations

import asyncio
import base64
import secrets
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

from tests.health.watching import Seen, Watch
from tests.parts import mongod as mongo
from tests.parts import provider as oidc
from tests.parts.sample_server import ProviderAddress, SampleServer, signed_in
from tests.parts.scripted_provider import Answer, ScriptedProvider
from tests.parts.sse_client import SSEClient

SEEN_WITHIN = 30.0
PASSES_WITHIN = 60.0
TICKS = 3


@dataclass
class World:
    """A server, what it stands on, and somebody's open stream."""

    server: SampleServer
    mongod: mongo.ReplicaSet
    stream: SSEClient
    provider: oidc.Provider | None = None
    scripted: ScriptedProvider | None = None


@dataclass(frozen=True)
class Fault:
    """`check`: whose trouble it is, and `status` what that check then says."""

    name: str
    check: str
    status: str
    happens: Callable[[World], AbstractAsyncContextManager[None]]


@dataclass(frozen=True, kw_only=True)
class Observed:
    """A row of the table. Times in seconds; `said`: the last word of each path during the fault."""

    fault: str
    check: str
    said: dict[str, str]
    seen_after: float
    slowest: float
    output: str
    passes_after: float


def is_well(seen: Seen, check: str) -> bool:
    """Ready, and every check passes, but for those that a busy machine fails, unless it is about one of them."""
    names = {name.partition(":")[0] for name in seen.body.get("checks", {})} - ({"targets", "loop"} - {check})
    return seen.status == 200 and bool(names) and all(seen.check(name).get("status") == "pass" for name in names)


async def observe(world: World, fault: Fault, *, settle: float = 3.0) -> Observed:
    """Let it happen, watch for `settle` seconds from when it was seen, and wait until all is well again.

    Raises AssertionError where something is not seen, or the stream did not live through it.
    """
    async with Watch(world.server.url) as watch:
        await watch.until(lambda seen: is_well(seen, fault.check), timeout=PASSES_WITHIN)
        began = time.monotonic()
        async with fault.happens(world):
            seen = await watch.until(
                lambda seen: seen.check(fault.check).get("status") == fault.status, timeout=SEEN_WITHIN
            )
            seen_after = time.monotonic() - began
            await asyncio.sleep(settle)
            during = {path: watch.between(path, began, time.monotonic()) for path in ("/livez", "/readyz", "/health")}
        ended = time.monotonic()
        await watch.until(lambda seen: is_well(seen, fault.check), timeout=PASSES_WITHIN)
        passes_after = time.monotonic() - ended
    assert not world.stream.ended, "the stream ended"
    for _ in range(TICKS):
        await world.stream.next("tick", timeout=10)
    return Observed(
        fault=fault.name,
        check=fault.check,
        said={path: answers[-1].said for path, answers in during.items()},
        seen_after=seen_after,
        slowest=max(answer.took for answers in during.values() for answer in answers),
        output=seen.check(fault.check)["output"],
        passes_after=passes_after,
    )


# -- the store -----------------------------------------------------------------------------------------------------


@asynccontextmanager
async def mongod_frozen(world: World) -> AsyncIterator[None]:
    with world.mongod.members[0].stopped():
        yield


@asynccontextmanager
async def mongod_killed(world: World) -> AsyncIterator[None]:
    member = world.mongod.members[0]
    await asyncio.to_thread(member.kill)
    yield
    await asyncio.to_thread(member.start)
    await asyncio.to_thread(world.mongod.primary)


@asynccontextmanager
async def no_primary(world: World) -> AsyncIterator[None]:
    """A member alone that has stepped down is no primary until its time is over, or it is told so."""
    member = world.mongod.members[0]
    await asyncio.to_thread(member.run, "replSetStepDown", 600, force=True)
    yield
    await asyncio.to_thread(member.run, "replSetFreeze", 0)


# -- the provider --------------------------------------------------------------------------------------------------


@asynccontextmanager
async def provider_frozen(world: World) -> AsyncIterator[None]:
    assert world.provider is not None
    with world.provider.stopped():
        yield


@asynccontextmanager
async def provider_down(world: World) -> AsyncIterator[None]:
    assert world.provider is not None
    await asyncio.to_thread(world.provider.kill)
    yield
    await asyncio.to_thread(world.provider.start)


def answers(*, endpoints: tuple[str, ...], answer: Answer) -> Callable[[World], AbstractAsyncContextManager[None]]:
    """A provider that answers so, and nothing else."""

    @asynccontextmanager
    async def happens(world: World) -> AsyncIterator[None]:
        assert world.scripted is not None
        for endpoint in endpoints:
            world.scripted.script(endpoint, *[answer] * 1000)  # type: ignore[arg-type]
        yield
        for endpoint in endpoints:
            world.scripted.unscript(endpoint)  # type: ignore[arg-type]

    return happens


ALL = ("discovery", "jwks", "check")
BROKEN = Answer(status=500, body="Internal Server Error")
HTML = Answer(status=200, headers={"Content-Type": "text/html"}, body="<!doctype html><title>Maintenance</title>")


@asynccontextmanager
async def wrong_issuer(world: World) -> AsyncIterator[None]:
    assert world.scripted is not None
    metadata = world.scripted.metadata
    world.scripted.metadata = {**metadata, "issuer": "https://another.example"}
    yield
    world.scripted.metadata = metadata


@asynccontextmanager
async def client_refused(world: World) -> AsyncIterator[None]:
    assert world.scripted is not None
    world.scripted.client_secret = "another"
    yield
    world.scripted.client_secret = ScriptedProvider.client_secret


# -- this process --------------------------------------------------------------------------------------------------


@asynccontextmanager
async def loop_blocked(world: World) -> AsyncIterator[None]:
    world.server.signal(signal.SIGUSR1)
    yield


STORE_FAULTS = (
    Fault("mongod is frozen", "store", "fail", mongod_frozen),
    Fault("mongod is killed", "store", "fail", mongod_killed),
    Fault("the replica set has no primary", "replica_set", "warn", no_primary),
)
PROVIDER_FAULTS = (
    Fault("the provider is frozen", "provider", "warn", provider_frozen),
    Fault("the provider is down", "provider", "warn", provider_down),
)
ANSWER_FAULTS = (
    Fault("the provider answers 500", "provider", "warn", answers(endpoints=ALL, answer=BROKEN)),
    Fault("the provider answers HTML", "provider", "warn", answers(endpoints=ALL, answer=HTML)),
    Fault(
        "only its token endpoint answers 500", "token_endpoint", "warn", answers(endpoints=("check",), answer=BROKEN)
    ),
    Fault(
        "only its key set is missing", "provider_keys", "warn", answers(endpoints=("jwks",), answer=Answer(status=404))
    ),
    Fault("its metadata names another issuer", "provider", "warn", wrong_issuer),
    Fault("it refuses the client", "client", "warn", client_refused),
)
PROCESS_FAULTS = (Fault("the event loop is blocked for 3 s", "loop", "warn", loop_blocked),)


# -- the worlds ----------------------------------------------------------------------------------------------------


def new_database() -> str:
    """A name that nobody else uses."""
    return f"health_{secrets.token_hex(6)}"


def new_key() -> str:
    """An encryption key as the sample takes it."""
    return base64.b64encode(secrets.token_bytes(32)).decode()


def blockable(provider: ProviderAddress, uri: str, database: str, key: str) -> SampleServer:
    """A server whose loop can be held up."""
    server = SampleServer(provider, uri, database, encryption_key=key, driver="pymongo")
    server.command[2] = "tests.health.blockable"
    return server


@asynccontextmanager
async def real_world(mongod: mongo.ReplicaSet, provider: oidc.Provider) -> AsyncIterator[World]:
    """The server over a real MongoDB and a real provider."""
    server = blockable(provider, mongod.uri, new_database(), new_key())
    try:
        await asyncio.to_thread(server.start)
        await provider.add_redirect_uri(f"{server.url}/auth/callback")
        user = await signed_in(server, f"user{secrets.token_hex(4)}")
        async with user.stream(server) as stream:
            yield World(server, mongod, stream, provider=provider)
    finally:
        server.kill()


@asynccontextmanager
async def scripted_world(mongod: mongo.ReplicaSet) -> AsyncIterator[World]:
    """The server over a real MongoDB and a provider that answers as it is told: a real one cannot answer so."""
    async with ScriptedProvider() as provider:
        server = blockable(provider, mongod.uri, new_database(), new_key())
        try:
            await asyncio.to_thread(server.start)
            user = await signed_in(server, f"user{secrets.token_hex(4)}")
            async with user.stream(server) as stream:
                yield World(server, mongod, stream, scripted=provider)
        finally:
            server.kill()


async def keys_missing(mongod: mongo.ReplicaSet, provider: oidc.Provider, *, settle: float = 3.0) -> Observed:
    """A server that starts without the key that stored sessions need; the remedy is the one that `output` names."""
    database, old, new = new_database(), new_key(), new_key()
    with_old = blockable(provider, mongod.uri, database, old)
    servers = [with_old]
    try:
        await asyncio.to_thread(with_old.start)
        await provider.add_redirect_uri(f"{with_old.url}/auth/callback")
        await signed_in(with_old, f"user{secrets.token_hex(4)}")
        without = blockable(provider, mongod.uri, database, new)
        servers.append(without)
        began = time.monotonic()
        await asyncio.to_thread(without.start)
        async with Watch(without.url) as watch:
            seen = await watch.until(lambda seen: seen.check("sealing").get("status") == "warn", timeout=SEEN_WITHIN)
            seen_after = time.monotonic() - began
            await asyncio.sleep(settle)
            said = {
                path: watch.between(path, began, time.monotonic())[-1].said for path in ("/livez", "/readyz", "/health")
            }
            slowest = max(answer.took for answer in watch.seen)
        await asyncio.to_thread(without.stop)
        with_both = blockable(provider, mongod.uri, database, f"{new},{old}")
        servers.append(with_both)
        began = time.monotonic()
        await asyncio.to_thread(with_both.start)
        async with Watch(with_both.url) as watch:
            await watch.until(lambda seen: seen.check("sealing").get("status") == "pass", timeout=PASSES_WITHIN)
        return Observed(
            fault="a key that stored sessions need is not given",
            check="sealing",
            said=said,
            seen_after=seen_after,
            slowest=slowest,
            output=seen.check("sealing")["output"],
            passes_after=time.monotonic() - began,
        )
    finally:
        for server in servers:
            server.kill()
