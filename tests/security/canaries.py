"""Planted secrets: who holds them, the server that is made to spill, and the search."""

from __future__ import annotations

import asyncio
import base64
import secrets
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx

from tests.parts.process import ServerProcess, free_port
from tests.parts.scripted_provider import ScriptedProvider
from tests.parts.statsd import StatsDListener


class Canaries:
    """Every value that nobody but its owner may see, and what kind it is of."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}

    def add(self, kind: str, *values: str) -> None:
        """Watch for these."""
        for value in values:
            assert len(value) >= 16, kind
            self.values[value] = kind

    def seen_in(self, text: str) -> set[str]:
        """The kinds of those that stand in `text`: as they are, in base64 of either alphabet, or in hexadecimal."""
        found = set()
        for value, kind in self.values.items():
            raw = value.encode()
            coded = {base64.b64encode(raw[i : len(raw) - (len(raw) - i) % 3]).decode() for i in range(3)}
            coded |= {part.replace("+", "-").replace("/", "_") for part in coded}
            if any(form in text for form in {value, raw.hex(), *coded}):
                found.add(kind)
        return found


class RecordingProvider(ScriptedProvider):
    """Remembers every secret that it gives or is told."""

    def collect(self, canaries: Canaries) -> None:
        """Hand them over."""
        canaries.add("access token", *self._access_tokens)
        canaries.add("refresh token", *self._refresh_tokens)
        canaries.add("id token", *self.id_tokens)
        for call in self._calls:
            for field in ("code", "code_verifier"):
                if field in call.form:
                    canaries.add(field, call.form[field])

    async def __aenter__(self) -> RecordingProvider:
        await super().__aenter__()
        self.id_tokens: list[str] = []

        def encode(claims: dict[str, Any]) -> str:
            self.id_tokens.append(self.sign(claims))
            return self.id_tokens[-1]

        self.encode_id_token = encode
        return self


@asynccontextmanager
async def canary_server(
    provider: ScriptedProvider, uri: str, database: str, statsd: StatsDListener, canaries: Canaries
) -> AsyncIterator[tuple[str, ServerProcess]]:
    """The server with every secret option set; gives its URL and its process."""
    port, keys = free_port(), [secrets.token_bytes(32) for _ in range(2)]
    encoded = [base64.b64encode(key).decode() for key in keys]
    canaries.add("encryption key", *encoded, *(key.hex() for key in keys))
    canaries.add("client secret", provider.client_secret)
    process = ServerProcess(
        "canary server",
        [
            sys.executable,
            "-m",
            "tests.security.canary_server",
            f"--port={port}",
            f"--issuer={provider.issuer}",
            f"--client-id={provider.client_id}",
            f"--statsd={statsd.host}:{statsd.port}",
            f"--mongodb-database={database}",
            "--mongodb-driver=pymongo",
            "--refresh-interval=0.1",
            "--grant-scopes=content:read events:write",
        ],
        ready=lambda server: server.wait_for_line("serving", 30),
        environment={
            "SAMPLE_CLIENT_SECRET": provider.client_secret,
            "SAMPLE_ENCRYPTION_KEYS": ",".join(encoded),
            "SAMPLE_MONGODB_URI": uri,
        },
    )
    await asyncio.to_thread(process.start)
    try:
        yield f"http://127.0.0.1:{port}", process
    finally:
        await asyncio.to_thread(process.stop)


class Visitor:
    """A browser that signs in, and notes which of the secrets it was given were meant for it."""

    def __init__(self, url: str, canaries: Canaries) -> None:
        self.url = url
        self.canaries = canaries
        self.answers: list[httpx.Response] = []
        self.client = httpx.AsyncClient(
            base_url=url, trust_env=False, timeout=10, event_hooks={"response": [self.note]}
        )

    async def note(self, answer: httpx.Response) -> None:
        """Remember an answer, and the cookies that it sets."""
        await answer.aread()
        self.answers.append(answer)
        for cookie in answer.headers.get_list("Set-Cookie"):
            if value := cookie.partition(";")[0].partition("=")[2].strip('"'):
                self.canaries.add("cookie", value)

    async def sign_in(self, user: str, *, status: int = 302, **parameters: str) -> None:
        """The whole way."""
        login = await self.client.get("/auth/login", params={"login_hint": user, **parameters})
        query = parse_qs(urlsplit(login.headers["Location"]).query)
        self.canaries.add("state", *query["state"])
        self.canaries.add("nonce", *query["nonce"])
        async with httpx.AsyncClient(trust_env=False) as elsewhere:
            callback = (await elsewhere.get(login.headers["Location"])).headers["Location"]
        assert (await self.client.get(callback)).status_code == status

    @property
    def cookie(self) -> dict[str, str]:
        """The Cookie header with the session."""
        name, value = next((name, value) for name, value in self.client.cookies.items() if "sign_in" not in name)
        return {"Cookie": f"{name}={value}"}
