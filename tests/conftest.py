"""Fixtures for all tests. What they start lives in tests/parts."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.parts import browser as chromium
from tests.parts import mongod as mongo
from tests.parts import provider as oidc
from tests.parts.require import RealPartsReport, require
from tests.parts.scripted_provider import ScriptedProvider
from tests.parts.statsd import StatsDListener

# `--hypothesis-profile=long` searches for hours what the suite, with the same examples each time, does in seconds.
SLOW_MACHINE = (HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large)
settings.register_profile("suite", deadline=None, derandomize=True, suppress_health_check=SLOW_MACHINE)
settings.register_profile("long", deadline=None, max_examples=10_000, suppress_health_check=SLOW_MACHINE)
settings.load_profile("suite")

REAL_PARTS = {
    "mongod": "mongod",
    "own_mongod": "mongod",
    "standalone_mongod": "mongod",
    "replica_set_of_three": "mongod",
    "provider": "provider",
    "own_provider": "provider",
    "browser": "browser",
    "conformance": "conformance suite",
    "graphite": "graphite",
}


def pytest_configure(config: pytest.Config) -> None:
    """Tests with a fixture of REAL_PARTS carry the marker `real`; in CI none of them may be skipped."""
    config.pluginmanager.register(RealPartsReport(REAL_PARTS), "real-parts")


@pytest.fixture(scope="session")
def mongod() -> Iterator[mongo.ReplicaSet | mongo.ExternalMongo]:
    """A MongoDB replica set for the whole run; only its `uri` may be used. Faults need `own_mongod`."""
    require(mongo.check_available)
    with mongo.shared() as servers:
        yield servers


@pytest.fixture
def database_name(mongod: mongo.ReplicaSet | mongo.ExternalMongo) -> Iterator[str]:
    """The name of a database of `mongod` that is this test's alone; dropped at the end."""
    name = f"test_{secrets.token_hex(6)}"
    yield name
    mongo.drop_database(mongod.uri, name)


@pytest.fixture
def own_mongod() -> Iterator[mongo.ReplicaSet]:
    """A one-node replica set of this test's own, to freeze, kill and restart: `own_mongod.members[0]`."""
    require(mongo.find_binary)
    with mongo.replica_set(1) as servers:
        yield servers


@pytest.fixture
def standalone_mongod() -> Iterator[mongo.Mongod]:
    """A mongod that is no replica set."""
    require(mongo.find_binary)
    with mongo.standalone() as server:
        yield server


@pytest.fixture
def replica_set_of_three() -> Iterator[mongo.ReplicaSet]:
    """Three members, for fail-overs."""
    require(mongo.find_binary)
    with mongo.replica_set(3) as servers:
        yield servers


@pytest.fixture(scope="session")
def provider() -> Iterator[oidc.Provider]:
    """The real OpenID provider for the whole run. A test uses accounts of its own; faults need `own_provider`."""
    require(oidc.check_available)
    with oidc.running() as server:
        yield server


@pytest.fixture
def own_provider() -> Iterator[oidc.Provider]:
    """A provider of this test's own, to freeze, kill and restart."""
    require(oidc.check_available)
    with oidc.running() as server:
        yield server


@pytest.fixture
def browser() -> chromium.Browser:
    """Headless Chromium; each `await browser.run(script, ...)` starts a fresh one."""
    require(chromium.check_available)
    return chromium.Browser()


@pytest.fixture
async def scripted_provider() -> AsyncIterator[ScriptedProvider]:
    """A provider whose every answer the test may choose; in the test's own loop."""
    async with ScriptedProvider() as server:
        yield server


@pytest.fixture
async def statsd() -> AsyncIterator[StatsDListener]:
    """A StatsD listener that keeps what it is sent."""
    async with StatsDListener() as listener:
        yield listener
