"""What the tests of several processes share."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator

import pytest

from tests.parts import provider as oidc
from tests.parts.mongod import ExternalMongo, ReplicaSet
from tests.parts.sample_server import SampleServer, sample_servers


@pytest.fixture
async def pair(
    provider: oidc.Provider, mongod: ReplicaSet | ExternalMongo, database_name: str
) -> AsyncIterator[list[SampleServer]]:
    """Two servers, one on each driver."""
    async with sample_servers(provider, [mongod.uri] * 2, database_name) as servers:
        yield servers


@pytest.fixture
def account() -> str:
    """The name of somebody who has never signed in before."""
    return f"user{secrets.token_hex(4)}"
