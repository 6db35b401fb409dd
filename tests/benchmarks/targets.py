"""The four targets, with a real MongoDB and a real provider: 50 users with open streams and requests of their own."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack

import httpx

from tests.benchmarks.load import Server, running
from tests.benchmarks.progress import progress
from tests.benchmarks.rows import Row, percentile
from tests.parts import mongod, provider
from tests.parts.sse_client import SSEClient
from tornado_sse_auth.metrics import TARGETS

USERS = 50
SECONDS = 30.0
PAUSE = 0.2  # between one user's requests
ACCESS_TTL = 8


def targets() -> list[Row]:
    """Each session validation asks the store; each access token lives for eight seconds."""
    with (
        mongod.shared() as servers,
        provider.running(access_ttl=ACCESS_TTL) as issuer,
    ):
        try:
            with running("everything", mongo=servers.uri, database="benchmark_targets", issuer=issuer.issuer) as server:
                quick = asyncio.run(_load(server, issuer))
                timings = server.ask("GET", "/-/timings")
        finally:
            mongod.drop_database(servers.uri, "benchmark_targets")
    disturbed = f"a request that asks nobody: {percentile(quick, 95) * 1000:.0f} ms"
    return [
        Row(
            name=f"{name}, 95th percentile, {USERS} users",
            unit="ms",
            value=percentile(timings[name], 95) * 1000,
            reach=target * 1000,
            detail=f"{len(timings[name])} measured, median {percentile(timings[name], 50) * 1000:.2g} ms; {disturbed}",
        )
        for name, target in TARGETS.items()
    ]


async def _load(server: Server, issuer: provider.Provider) -> list[float]:
    """Seconds that requests took which need neither session nor store: what the machine itself does to the others."""
    await issuer.add_redirect_uri(f"{server.url}/auth/callback")
    jars = [await _signed_in(server, f"user{number}") for number in range(USERS)]
    await asyncio.to_thread(server.ask, "DELETE", "/-/timings")
    until = time.monotonic() + SECONDS
    async with AsyncExitStack() as stack:
        for jar in jars:
            await stack.enter_async_context(SSEClient(f"{server.url}/stream", cookies=jar))
        async with asyncio.TaskGroup() as group:
            for jar in jars:
                group.create_task(_requests(server, jar, until))
            group.create_task(_checks(server, until))
            quick = group.create_task(_quick(server, until))
    return quick.result()


async def _signed_in(server: Server, account: str) -> httpx.Cookies:
    done = await provider.sign_in(f"{server.url}/auth/login", account=account)
    if done.response.status_code != 302:
        raise RuntimeError(f"sign-in: {done.response.status_code} {done.response.text}")
    return done.cookies


async def _requests(server: Server, jar: httpx.Cookies, until: float) -> None:
    async with httpx.AsyncClient(base_url=server.url, cookies=jar, trust_env=False, timeout=10) as client:
        while time.monotonic() < until:
            (await client.get("/")).raise_for_status()
            await asyncio.sleep(PAUSE)


async def _quick(server: Server, until: float) -> list[float]:
    found = []
    async with httpx.AsyncClient(base_url=server.url, trust_env=False, timeout=10) as client:
        while time.monotonic() < until:
            begun = time.monotonic()
            (await client.get("/-/usage")).raise_for_status()
            found.append(time.monotonic() - begun)
            await asyncio.sleep(PAUSE)
    return found


async def _checks(server: Server, until: float) -> None:
    while (left := until - time.monotonic()) > 0:
        progress(f"the four targets, {left:.0f} s to go")
        await asyncio.to_thread(server.ask, "POST", "/-/check")
        await asyncio.sleep(PAUSE)
