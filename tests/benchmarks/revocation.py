"""How long a sign-out in one process takes to end the user's streams in another."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import httpx

from tests.benchmarks.progress import progress
from tests.benchmarks.rows import Row, percentile
from tests.parts import mongod, provider
from tests.parts.sample_server import SampleServer, sample_servers, signed_in

SIGN_OUTS = 200
DATABASE = "benchmark_revocation"


def revocation() -> list[Row]:
    """Two sample servers, one on each driver; from the sign-out's first byte to the end of the stream at its client."""
    with mongod.shared() as servers, provider.running() as issuer:
        try:
            seconds = asyncio.run(_measure(issuer, servers.uri))
        finally:
            mongod.drop_database(servers.uri, DATABASE)
    name = "a sign-out in one process ends the stream in another"
    return [
        Row(name=f"{name}, median", unit="ms", value=percentile(seconds, 50) * 1000, reach=20),
        Row(
            name=f"{name}, worst of {len(seconds)}",
            unit="ms",
            value=max(seconds) * 1000,
            reach=250,
            detail=f"95th percentile {percentile(seconds, 95) * 1000:.2g} ms",
        ),
    ]


async def _measure(issuer: provider.Provider, uri: str) -> list[float]:
    found = []
    async with sample_servers(issuer, [uri] * 2, DATABASE) as pair:
        for number in range(SIGN_OUTS):
            progress(f"{number} of {SIGN_OUTS} sign-outs")
            at, other = pair[number % 2], pair[1 - number % 2]
            found.append(await sign_out_elsewhere(at, other, f"user{number}"))
    return found


async def _nothing() -> None:
    """Happens before a sign-out."""


async def sign_out_elsewhere(
    at: SampleServer, other: SampleServer, account: str, just_before: Callable[[], Awaitable[None]] = _nothing
) -> float:
    """Seconds from a sign-out at one server to the end of the user's stream at the other."""
    user = await signed_in(at, account)
    async with (
        user.stream(other) as stream,
        httpx.AsyncClient(base_url=at.url, trust_env=False, verify=False) as client,
    ):
        await stream.next("open")
        headers = {"Origin": at.url, "Cookie": user.cookie}
        (await client.get("/me", headers=headers)).raise_for_status()  # the connection is there
        await just_before()
        begun = time.monotonic()
        answer = asyncio.create_task(client.post("/auth/logout", headers=headers))
        await stream.next("end")
        ended = time.monotonic()
        (await answer).raise_for_status()
    async with user.client(other) as again:
        if (await again.get("/me")).status_code != 401:
            raise RuntimeError("a session that was signed out is still good")
    return ended - begun
