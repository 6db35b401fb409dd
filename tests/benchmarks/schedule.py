"""What a tick of the refresh manager costs when nothing is due."""

from __future__ import annotations

import time
from statistics import median

from tests.benchmarks.rows import Row
from tornado_sse_auth import (
    MemorySessionStore,
    OAuthProvider,
    Secret,
    Session,
    SSEAuthenticationMiddleware,
    TokenSet,
)
from tornado_sse_auth.testing import ManualClock

SESSIONS = 100_000
TICKS = 2000


def tick() -> list[Row]:
    """With every session in the schedule."""
    clock = ManualClock()
    provider = OAuthProvider(issuer="http://127.0.0.1:9", client_id="app", client_secret="unused")
    auth = SSEAuthenticationMiddleware(
        MemorySessionStore(clock=clock), provider, public_url="http://127.0.0.1:8000", clock=clock
    )
    for number in range(SESSIONS):
        auth.refresh_manager.stream_opened(_session(number, clock.time()))
    if auth.refresh_manager.scheduled != SESSIONS:
        raise RuntimeError(f"{auth.refresh_manager.scheduled} sessions are scheduled")
    costs = []
    for _ in range(TICKS):
        begun = time.perf_counter()
        auth.refresh_manager.tick()
        costs.append(time.perf_counter() - begun)
    return [
        Row(name=f"a refresh tick, nothing due, {SESSIONS:,} scheduled", unit="µs", value=median(costs) * 1e6, reach=50)
    ]


def _session(number: int, now: float) -> Session:
    return Session(
        id=f"s{number}",
        user_id=f"u{number}",
        created_at=now,
        last_seen=now,
        expires_at=now + 86_400,
        idle_expires_at=now + 86_400,
        token_set=TokenSet(
            access_token=Secret("a"), refresh_token=Secret("r"), issued_at=now, expires_at=now + 600, scopes=frozenset()
        ),
        token_version=1,
    )
