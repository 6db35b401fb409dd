"""Fixtures of the security tests."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.security.kit import World, world


@pytest.fixture
async def running(caplog: pytest.LogCaptureFixture) -> AsyncIterator[World]:
    """An application with a provider, watched."""
    async with world(caplog) as started:
        yield started
