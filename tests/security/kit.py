"""An application, its provider and its log, watched: what an attempt stored, sent or wrote down is seen."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from tests.parts.scripted_provider import ScriptedProvider
from tests.scenarios.server import Running, provider_at, serve
from tornado_sse_auth import CredentialKind, MemorySessionStore, Session


class WatchedStore(MemorySessionStore):
    """A memory store that counts who asks it for what."""

    questions = 0

    async def find_by_credential(self, digest: bytes) -> Session | None:
        self.questions += 1
        return await super().find_by_credential(digest)

    def content(self) -> dict[str, tuple[int, float]]:
        """Every session that is stored, with what changes when it is written."""
        return {session.id: (session.version, session.last_seen) for session in self._sessions.values()}


@dataclass(frozen=True)
class KeptAlive:
    """One connection, for one request after another."""

    host: str
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def request(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes = b""
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, headers by their names in lower case, and body."""
        fields = {"Host": self.host, "Content-Length": str(len(body)), **headers}
        lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
        self.writer.write("\r\n".join(lines).encode() + body)
        first, *rest = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        fields = {name.lower(): value for name, _, value in (line.partition(": ") for line in rest if line)}
        return int(first.split()[1]), fields, await self.reader.readexactly(int(fields["content-length"]))


@asynccontextmanager
async def kept_alive(url: str) -> AsyncIterator[KeptAlive]:
    """A connection of its own."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        yield KeptAlive(parts.netloc, reader, writer)
    finally:
        writer.close()


@dataclass(frozen=True)
class World:
    """`stored_before` and the like are taken by `nothing_happens`."""

    app: Running
    scripted: ScriptedProvider
    store: WatchedStore
    log: pytest.LogCaptureFixture
    answers: list[httpx.Response] = field(default_factory=list)

    def client(self, **more: Any) -> httpx.AsyncClient:
        """A client whose answers are remembered."""

        async def remember(answer: httpx.Response) -> None:
            await answer.aread()
            self.answers.append(answer)

        return self.app.client(event_hooks={"response": [remember]}, **more)

    async def bearer(self, user_id: str = "u1", **more: Any) -> str:
        """A bearer of a new session."""
        _, secret = await self.app.auth.sessions.create(user_id=user_id, kind=CredentialKind.BEARER, **more)
        return secret.reveal()

    async def cookie(self, user_id: str = "u1", **more: Any) -> dict[str, str]:
        """The Cookie header of a new session."""
        _, secret = await self.app.auth.sessions.create(user_id=user_id, **more)
        return {"Cookie": f"{self.app.cookie}={secret.reveal()}"}

    async def begin(self, browser: httpx.AsyncClient, **parameters: str) -> str:
        """To the provider and back, without the last step: the callback's address."""
        login = await browser.get("/auth/login", params=parameters)
        assert login.status_code == 302, login.text
        async with httpx.AsyncClient(trust_env=False) as elsewhere:
            back = await elsewhere.get(login.headers["Location"])
        return str(back.headers["Location"])

    async def sign_in(self, browser: httpx.AsyncClient, user: str = "alice", **parameters: str) -> httpx.Response:
        """The whole way; the browser keeps the cookie."""
        answer = await browser.get(await self.begin(browser, login_hint=user, **parameters))
        assert answer.status_code == 302, answer.text
        return answer

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        parts = urlsplit(self.app.url)
        assert parts.hostname is not None
        assert parts.port is not None
        return parts.hostname, parts.port

    async def raw(self, request: bytes, *, wait: float = 10.0, end: bool = False) -> bytes:
        """See `raw`."""
        return await raw(self.app.url, request, wait=wait, end=end)

    @contextmanager
    def nothing_happens(self, *secrets: str) -> Iterator[None]:
        """Within the block no session is stored or changed, the token endpoint is not asked, no cookie is set, and
        none of `secrets` is written to the log or into an answer."""
        before, calls, answers = self.store.content(), len(self.scripted.calls("token")), len(self.answers)
        first = len(self.log.records)
        yield
        assert self.store.content() == before
        assert len(self.scripted.calls("token")) == calls
        written = "\n".join(logged(record) for record in self.log.records[first:])
        for answer in self.answers[answers:]:
            assert self.app.cookie not in answer.headers.get("Set-Cookie", "")
            written += "\n" + answer.text + str(answer.headers)
        for secret in secrets:
            assert secret not in written


async def raw(url: str, request: bytes, *, wait: float = 10.0, end: bool = False) -> bytes:
    """What the server answers to these bytes until it hangs up; it must within `wait` seconds. `end`: nothing comes
    after them, and the server is told so."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    received = b""
    try:
        async with asyncio.timeout(wait):
            writer.write(request)
            if end:
                writer.write_eof()
            while chunk := await reader.read(65_536):
                received += chunk
    except ConnectionError:
        pass  # it may hang up on what it does not want to read
    finally:
        writer.close()
    return received


def logged(record: logging.LogRecord) -> str:
    """What a handler with the plainest format would write, traceback included."""
    return logging.Formatter("%(name)s %(message)s").format(record)


@asynccontextmanager
async def world(log: pytest.LogCaptureFixture, **options: Any) -> AsyncIterator[World]:
    """A running application at a scripted provider, with the log at DEBUG but for the tests' own clients."""
    for library in ("httpx", "httpcore"):
        log.set_level(logging.WARNING, logger=library)
    log.set_level(logging.DEBUG)  # the last call: each one sets the level of the capture, too
    async with ScriptedProvider() as scripted:
        provider = provider_at(scripted, timeout=3.0)
        store = WatchedStore(**({"clock": options["clock"]} if "clock" in options else {}))
        async with serve(store, provider, **options) as app:
            yield World(app, scripted, store, log)


def refused(answer: httpx.Response, status: int, code: str) -> Mapping[str, Any]:
    """The common shape of every error, and its headers."""
    assert answer.status_code == status, (answer.status_code, answer.text)
    body: dict[str, Any] = answer.json()
    assert body["error"] == code
    assert body["request_id"] == answer.headers["X-Request-ID"]
    assert set(body) <= {"error", "error_description", "authorization_url", "request_id"}
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
    if status in (429, 503):
        assert int(answer.headers["Retry-After"]) >= 1
    return body
