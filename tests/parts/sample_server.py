"""The sample server as processes: several on one database and one provider, as behind a load balancer.

Each listens on a port of its own, so that a test chooses who answers; users carry bearers, which all of them know.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import secrets
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import httpx

from tests.parts.process import ServerProcess, free_port
from tests.parts.provider import sign_in
from tests.parts.sse_client import SSEClient

ROOT = Path(__file__).parents[2]
SCOPES = "openid offline_access profile content:read events:write"
_AUDIT = re.compile(r"tornado_sse_auth\.audit \[[^]]*\] (\{.*\})$", re.MULTILINE)


class ProviderAddress(Protocol):
    """What a server must know of its provider."""

    issuer: str
    client_id: str
    client_secret: str


class SampleServer(ServerProcess):
    """One `python -m sample_server`. It is ready when it says so at `/readyz`."""

    def __init__(
        self,
        provider: ProviderAddress,
        mongodb_uri: str,
        database: str,
        *options: str,
        encryption_key: str,
        driver: str = "motor",
        environment: Mapping[str, str] | None = None,
        beside: SampleServer | None = None,
    ) -> None:
        """`options` are further ones of the command line. `beside`: on the port of that one, which may be running."""
        self.port = beside.port if beside is not None else free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.driver = driver
        command = [sys.executable, "-m", "sample_server", f"--port={self.port}", f"--issuer={provider.issuer}"]
        command += [f"--client-id={provider.client_id}", f"--scopes={SCOPES}", "--refresh-interval=0.2"]
        command += [f"--mongodb-database={database}", f"--mongodb-driver={driver}", "--max-streams-per-user=5000"]
        given = {
            "SAMPLE_MONGODB_URI": mongodb_uri,
            "SAMPLE_CLIENT_SECRET": provider.client_secret,
            "SAMPLE_ENCRYPTION_KEYS": encryption_key,
            **(environment or {}),
        }

        def ready(server: ServerProcess) -> None:
            if beside is not None:  # anybody may answer there
                server.wait_for_line("Ctrl-C ends it", 60)
            else:
                server.wait_until(self.is_ready, "is not ready", 60)

        super().__init__(
            f"sample server {self.port}",
            [*command, *options],
            ready=ready,
            environment=given,
            folder=ROOT,
        )

    def is_ready(self) -> bool:
        """Whether `/readyz` says yes."""
        with suppress(OSError), urllib.request.urlopen(f"{self.url}/readyz", timeout=2) as answer:
            return bool(answer.status == 200)
        return False

    def audit(self) -> list[dict[str, Any]]:
        """The lines of the audit log so far, over all starts."""
        return [json.loads(found[1]) for found in _AUDIT.finditer(self.output)]

    def descriptors(self) -> int:
        """Open file descriptors of the process."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def memory(self) -> int:
        """Resident memory of the process in bytes."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class User:
    """Somebody who has signed in: a bearer that every server takes, and the cookie of the one where it happened."""

    account: str
    session_id: str
    bearer: str
    cookie: str
    at: SampleServer

    def stream(self, server: SampleServer, *, last_event_id: str | None = None) -> SSEClient:
        """Their `/events` at `server`."""
        return SSEClient(f"{server.url}/events", bearer=self.bearer, last_event_id=last_event_id)

    def client(self, server: SampleServer) -> httpx.AsyncClient:
        """Their requests to `server`."""
        headers = {"Authorization": f"Bearer {self.bearer}"}
        return httpx.AsyncClient(base_url=server.url, headers=headers, trust_env=False, verify=False, timeout=10)

    async def sign_out(self, *, everywhere: bool = False) -> httpx.Response:
        """At the server where they signed in."""
        async with httpx.AsyncClient(trust_env=False, verify=False, timeout=10) as client:
            headers = {"Origin": self.at.url, "Cookie": self.cookie}
            body = {"everywhere": True} if everywhere else {}
            return await client.post(f"{self.at.url}/auth/logout", headers=headers, json=body)


async def signed_in(server: SampleServer, account: str, *, start: str | None = None) -> User:
    """A whole sign-in at the provider, by way of `server`; `start`: instead of its `/auth/login`."""
    done = await sign_in(start or f"{server.url}/auth/login", account=account)
    if done.response.status_code != 302:
        raise server.failure(f"sign-in of {account}: {done.response.status_code} {done.response.text}")
    name = f"sse_auth_{server.port}"
    cookie = f"{name}={done.cookies[name]}"
    async with httpx.AsyncClient(base_url=server.url, trust_env=False, verify=False, timeout=10) as client:
        headers = {"Origin": server.url, "Cookie": cookie}
        token = await client.post("/auth/token", headers=headers, json={"grant": "session", "expires_in": 86400})
        if token.status_code != 200:
            raise server.failure(f"no bearer for {account}: {token.status_code} {token.text}")
        bearer = token.json()["access_token"]
        me = await client.get("/me", headers={"Authorization": f"Bearer {bearer}"})
    return User(account, me.json()["session_id"], bearer, cookie, server)


class ManagedProvider(ProviderAddress, Protocol):
    """A provider that must be told where its client listens."""

    async def add_redirect_uri(self, uri: str) -> None:
        """Let the client use one more redirect URI."""


@asynccontextmanager
async def sample_servers(
    provider: ManagedProvider | ProviderAddress,
    uris: Sequence[str],
    database: str,
    *options: str,
    drivers: Sequence[str] = ("motor", "pymongo"),
) -> AsyncIterator[list[SampleServer]]:
    """One server for each MongoDB connection string of `uris`, with one encryption key, the drivers by turns."""
    key = base64.b64encode(secrets.token_bytes(32)).decode()
    servers = [
        SampleServer(provider, uri, database, *options, encryption_key=key, driver=drivers[number % len(drivers)])
        for number, uri in enumerate(uris)
    ]
    try:
        await asyncio.gather(*(asyncio.to_thread(server.start) for server in servers))
        if hasattr(provider, "add_redirect_uri"):
            for server in servers:
                await provider.add_redirect_uri(f"{server.url}/auth/callback")
        yield servers
    finally:
        for server in servers:
            server.kill()
