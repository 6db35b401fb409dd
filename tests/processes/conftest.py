"""What the tests of several processes share."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
import pytest_asyncio

from tests.parts import provider as oidc
from tests.parts.mongod import ExternalMongo, ReplicaSet, drop_database
from tests.parts.sample_server import SampleServer, sample_servers


@dataclass(frozen=True)
class Pair:
    """Two servers, one on each driver, for the whole run: a test uses accounts of its own and stops neither."""

    servers: list[SampleServer]
    uri: str
    database: str


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def pair(provider: oidc.Provider, mongod: ReplicaSet | ExternalMongo) -> AsyncIterator[Pair]:
    """Two servers on one database."""
    database = f"test_{secrets.token_hex(6)}"
    async with sample_servers(provider, [mongod.uri] * 2, database) as servers:
        yield Pair(servers, mongod.uri, database)
    drop_database(mongod.uri, database)


@pytest.fixture
def account() -> str:
    """The name of somebody who has never signed in before."""
    return f"user{secrets.token_hex(4)}"
