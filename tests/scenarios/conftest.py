"""Fixtures of the refresh scenarios."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.parts.scripted_provider import ScriptedProvider
from tests.scenarios.refresh_kit import FlakyStore, Kit, make_kit
from tornado_sse_auth.testing import ManualClock


@pytest.fixture
async def scripted() -> AsyncIterator[ScriptedProvider]:
    async with ScriptedProvider() as provider:
        yield provider


@pytest.fixture
async def kit(scripted: ScriptedProvider) -> AsyncIterator[Kit]:
    clock = ManualClock()
    store = FlakyStore(clock=clock)
    await store.start()
    kit = await make_kit(scripted, store, clock)
    yield kit
    await kit.refresher.close(1.0)
    await kit.sessions.close()
    await kit.provider.close()
    await store.close()
