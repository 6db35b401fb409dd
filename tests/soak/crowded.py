"""What the crowds of the soaks need: a sample server on MongoDB that writes down its validations, sessions for
everybody, and processes for those who come."""

from __future__ import annotations

import asyncio
import base64
import json
import resource
import secrets
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pymongo import AsyncMongoClient

from tests.parts import mongod
from tests.parts.process import ServerProcess, free_port
from tests.parts.statsd import StatsDListener
from tornado_sse_auth import CredentialKind, Keyring
from tornado_sse_auth.options import Options
from tornado_sse_auth.sessions.changes import SignedInUser, new_session
from tornado_sse_auth.sessions.credentials import issue
from tornado_sse_auth.stores.documents import session_document

DATABASE = "tornado_sse_auth"
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Crowded:
    """The parts of one run. `bearers`: of each user one; `validations`: what was written down since the last look."""

    server: ServerProcess
    port: int
    mongodb: str
    statsd: StatsDListener
    bearers: Sequence[str]
    validations: Iterator[tuple[float, float, str, bool]]


@asynccontextmanager
async def crowded_server(users: Sequence[str]) -> AsyncIterator[Crowded]:
    """A MongoDB, the server of `tests.soak.observed_server`, and a session for each user."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    key = base64.b64encode(secrets.token_bytes(32)).decode()
    with mongod.replica_set(1) as servers:
        async with StatsDListener() as statsd:
            with (
                tempfile.NamedTemporaryFile("r", prefix="validations-") as validations,
                _observed(servers.uri, key, statsd.port, validations.name) as (server, port),
            ):
                bearers = await _bearers(users, servers.uri, key)
                yield Crowded(server, port, servers.uri, statsd, bearers, map(json.loads, validations))


@contextmanager
def _observed(uri: str, key: str, statsd: int, validations: str) -> Iterator[tuple[ServerProcess, int]]:
    port = free_port()
    command = [sys.executable, "-m", "tests.soak.observed_server", validations]
    command += [f"--port={port}", "--max-streams-per-user=5000"]
    command += [f"--statsd=127.0.0.1:{statsd}", "--mongodb-driver=pymongo", f"--mongodb-database={DATABASE}"]
    with ServerProcess(
        "server",
        command,
        ready=lambda process: process.wait_for_line("Ctrl-C ends it", 60),
        environment={"SAMPLE_MONGODB_URI": uri, "SAMPLE_ENCRYPTION_KEYS": key},
        folder=ROOT,
    ) as server:
        yield server, port


async def _bearers(users: Sequence[str], uri: str, key: str) -> list[str]:
    options, keyring = Options(public_url="http://127.0.0.1"), Keyring.from_base64(key)
    documents, bearers = [], []
    for user_id in users:
        user = SignedInUser(
            user_id=user_id,
            scopes=frozenset({"events:write"}),
            permissions=frozenset(),
            subscription=None,
            claims={},
            token_set=None,
        )
        now = time.time()
        secret, credential = issue(CredentialKind.BEARER, now=now, expires_at=now + 86_400)
        documents.append(session_document(new_session(user, credential, now=now, options=options), keyring))
        bearers.append(secret.reveal())
    async with AsyncMongoClient[dict[str, Any]](uri) as client:
        await client[DATABASE]["sessions"].insert_many(documents)
    return bearers


async def child(*command: str, orders: Mapping[str, Any]) -> list[Any]:
    """What a Python process was told to find out: lines of JSON."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, cwd=ROOT
    )
    output, _ = await process.communicate(json.dumps(orders).encode())
    if process.returncode:
        raise AssertionError(f"{command[:2]} ended with {process.returncode}")
    return [json.loads(line) for line in output.splitlines()]
