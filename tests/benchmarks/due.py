"""Ten thousand sessions with open streams, all due for a refresh within one minute, over four processes."""

from __future__ import annotations

import asyncio
import base64
import random
import secrets
import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack

import httpx
from pymongo import AsyncMongoClient

from tests.benchmarks.load import Server, Streams, running
from tests.benchmarks.progress import progress
from tests.benchmarks.rows import Row, percentile
from tests.benchmarks.servers import DUE_SCOPES
from tests.parts import mongod
from tests.parts.scripted_provider import ScriptedProvider
from tests.processes.session_history import SessionHistory
from tornado_sse_auth import CredentialKind, Keyring, Secret, TokenSet
from tornado_sse_auth.mongodb.calls import CALL_TIMEOUT
from tornado_sse_auth.options import Options
from tornado_sse_auth.sessions.changes import SignedInUser, new_session
from tornado_sse_auth.sessions.credentials import issue
from tornado_sse_auth.stores.documents import session_document

DATABASE = "benchmark_due"
PROCESSES = 4
SESSIONS = 10_000
MINUTE = 60.0
LIFE = 20 * MINUTE  # the jitter of 5 % spreads what is due over one minute
FIRST_DUE = 0.85 * LIFE
PREPARING = SESSIONS / 60  # seconds: until everything is open
IDLE = 20.0
REQUESTS_A_SECOND = 100
ATTEMPTS = 5  # to open a stream


def due() -> list[Row]:
    """Real MongoDB; a provider of our own that counts how often it sees each token, since ten thousand refreshes a
    minute are more than a real one can answer on the same machine."""
    with mongod.replica_set(1) as servers:
        return asyncio.run(_measure(servers.uri))


async def _measure(uri: str) -> list[Row]:
    key = base64.b64encode(secrets.token_bytes(32)).decode()
    async with AsyncExitStack() as stack:
        provider = await stack.enter_async_context(ScriptedProvider(expires_in=LIFE))
        history = await stack.enter_async_context(SessionHistory(uri, DATABASE))
        where = {"mongo": uri, "database": DATABASE, "issuer": provider.issuer, "key": key}
        servers = [
            await asyncio.to_thread(stack.enter_context, running("one_of_many", **where)) for _ in range(PROCESSES)
        ]
        begin = time.time() + PREPARING
        bearers, expires_at = await _sessions(uri, key, provider, begin)
        streams = [Streams(server) for server in servers]
        for opened in streams:
            stack.callback(opened.close)
        await asyncio.gather(
            *(
                asyncio.to_thread(_open, server, opened, bearers[number::PROCESSES])
                for number, (server, opened) in enumerate(zip(servers, streams, strict=True))
            )
        )
        spare = begin - IDLE - time.time()
        if spare < 0:
            raise RuntimeError(f"opening {SESSIONS} streams took {-spare:.0f} s too long: the first are due already")
        progress("all streams are open")
        await asyncio.sleep(spare)
        idle = await _validations(servers, bearers, lambda: max(0.0, begin - time.time()), "seconds idle")
        all_by = begin + LIFE - FIRST_DUE  # some have expired by then

        def not_refreshed() -> int:
            return SESSIONS - len(history.refreshes) if time.time() < all_by else 0

        busy = await _validations(servers, bearers, not_refreshed, "sessions to refresh")
        late = sum(history.stored_at[name] / 1000 > expires_at[name] for name in expires_at)
        lost = sum(history.lost.values())
        twice = sum(uses > 1 for uses in provider.uses.values()) + sum(history.reattempts.values())
        last = max(history.stored_at.values()) / 1000 - begin - MINUTE
        name = f"{SESSIONS} sessions due in one minute, {PROCESSES} processes"
        return [
            Row(name=f"{name}: expired first", unit="", value=late + lost, reach=0, detail=f"the last {last:+.1f} s"),
            Row(name=f"{name}: spent twice", unit="", value=twice, reach=0, detail=history.crash_window()),
            Row(
                name=f"{name}: validation, 99th percentile, against idle",
                unit="x",
                value=percentile(busy, 99) / percentile(idle, 99),
                reach=2.0,
                project=percentile(busy, 99) * 1000,
                baseline=percentile(idle, 99) * 1000,
                detail="ms",
            ),
        ]


async def _sessions(
    uri: str, key: str, provider: ScriptedProvider, begin: float
) -> tuple[list[str], Mapping[str, float]]:
    """Bearers, and when the token of each session expires; the first is due at `begin` (epoch seconds)."""
    issued_at = begin - FIRST_DUE
    options = Options(public_url="http://127.0.0.1")
    bearers: list[str] = []
    expires_at: dict[str, float] = {}
    keyring = Keyring.from_base64(key)
    documents = []
    for number in range(SESSIONS):
        tokens = provider.issue(f"u{number}", DUE_SCOPES)
        user = SignedInUser(
            user_id=f"{provider.issuer}|u{number}",
            scopes=frozenset(DUE_SCOPES.split()),
            permissions=frozenset(),
            subscription=None,
            claims={"iss": provider.issuer, "sub": f"u{number}"},
            token_set=TokenSet(
                access_token=Secret(tokens["access_token"]),
                refresh_token=Secret(tokens["refresh_token"]),
                issued_at=issued_at,
                expires_at=issued_at + LIFE,
                scopes=frozenset(DUE_SCOPES.split()),
            ),
        )
        now = time.time()
        secret, credential = issue(CredentialKind.BEARER, now=now, expires_at=now + 86_400)
        session = new_session(user, credential, now=now, options=options)
        documents.append(session_document(session, keyring))
        bearers.append(secret.reveal())
        expires_at[session.id] = issued_at + LIFE
    async with AsyncMongoClient(uri) as client:
        await client[DATABASE]["sessions"].insert_many(documents)
    return bearers, expires_at


def _request(server: Server, path: str, bearer: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nAuthorization: Bearer {bearer}\r\n\r\n".encode()


def _open(server: Server, streams: Streams, bearers: list[str]) -> None:
    for bearer in bearers:
        for attempt in range(ATTEMPTS):
            try:
                streams.open(_request(server, "/stream", bearer))
                break
            except RuntimeError:  # 503: ten thousand at once are more than a busy machine takes
                if attempt == ATTEMPTS - 1:
                    raise
                time.sleep(1.0)


async def _validations(servers: list[Server], bearers: list[str], left: Callable[[], float], what: str) -> list[float]:
    """What the servers took to validate sessions drawn by chance, most from the store, until nothing is left."""
    for server in servers:
        await asyncio.to_thread(server.ask, "DELETE", "/-/timings")
    refused: list[float] = []

    async def ask(client: httpx.AsyncClient) -> None:
        while (still := left()) > 0:
            progress(f"{still:.0f} {what}")
            server = random.choice(servers)
            headers = {"Authorization": f"Bearer {random.choice(bearers)}"}
            answer = await client.get(f"{server.url}/", headers=headers)
            if answer.status_code == 503:
                refused.append(CALL_TIMEOUT)  # it took that long, and is in no timer
            else:
                answer.raise_for_status()
            await asyncio.sleep(PROCESSES / REQUESTS_A_SECOND)

    async with httpx.AsyncClient(trust_env=False, timeout=10) as client, asyncio.TaskGroup() as group:
        for _ in range(PROCESSES):
            group.create_task(ask(client))
    found = [await asyncio.to_thread(server.ask, "GET", "/-/timings") for server in servers]
    return refused + [value for timings in found for value in timings.get("session.validate", ())]
