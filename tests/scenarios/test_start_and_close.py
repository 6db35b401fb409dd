"""The middleware's life: a start that fails leaves nothing running, and can be tried again."""

from __future__ import annotations

import asyncio

import pytest

from tests.parts.scripted_provider import ScriptedProvider
from tests.streams.serving import until
from tornado_sse_auth import (
    AuthError,
    ConfigurationError,
    MemoryEventLog,
    MemorySessionStore,
    OAuthProvider,
    SSEAuthenticationMiddleware,
    StoreUnavailableError,
)
from tornado_sse_auth.testing import RecordingMetrics


class Store(MemorySessionStore):
    """Counts, and refuses to start when told to."""

    refuses = False
    running = 0

    async def start(self) -> None:
        if self.refuses:
            raise StoreUnavailableError(reason="away, says the test")
        self.running += 1
        await super().start()

    async def close(self) -> None:
        self.running -= 1
        await super().close()


class Events(MemoryEventLog):
    """The same."""

    refuses = False
    running = 0

    async def start(self) -> None:
        if self.refuses:
            raise ConfigurationError("not so, says the test")
        self.running += 1
        await super().start()

    async def close(self) -> None:
        self.running -= 1
        await super().close()


@pytest.mark.parametrize("refusing", ["store", "events", "provider"])
async def test_a_start_that_fails_undoes_what_it_began(scripted: ScriptedProvider, refusing: str) -> None:
    """Whichever part refuses. A second start is refused while the first lasts, and a second close is the first."""
    store, events, metrics = Store(), Events(), RecordingMetrics()
    provider = OAuthProvider(issuer=scripted.issuer, client_id="app", client_secret="secret")
    auth = SSEAuthenticationMiddleware(
        store, provider, public_url="http://127.0.0.1:8000", events=events, metrics=metrics, drain_timeout=0.1
    )
    await auth.close()  # nothing has been started
    before = asyncio.all_tasks()
    store.refuses, events.refuses = refusing == "store", refusing == "events"
    if refusing == "provider":
        scripted.metadata["issuer"] = "https://somebody-else.example"
    with pytest.raises(AuthError if refusing == "store" else ConfigurationError):
        await auth.start()
    assert (store.running, events.running, metrics.closed) == (0, 0, False)
    await until(lambda: asyncio.all_tasks() == before)
    store.refuses = events.refuses = False
    scripted.metadata["issuer"] = scripted.issuer
    await auth.start()
    assert (store.running, events.running) == (1, 1)
    with pytest.raises(ConfigurationError):
        await auth.start()
    await asyncio.gather(auth.close(), auth.close())
    await auth.close()
    assert (store.running, events.running, metrics.closed) == (0, 0, True)
    await until(lambda: asyncio.all_tasks() == before)
