"""The end of the provider's certificate: read from a real handshake, and told in time."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from tests.parts.certificates import Authority
from tornado_sse_auth import OAuthProvider
from tornado_sse_auth.clock import SystemClock
from tornado_sse_auth.health.provider import DAY, CertificateCheck
from tornado_sse_auth.health.report import Status
from tornado_sse_auth.oauth import Certificate
from tornado_sse_auth.oauth.http import HTTPClient
from tornado_sse_auth.testing import ManualClock

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"


async def test_a_handshake_shows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    authority = Authority()
    monkeypatch.setattr(httpx, "create_ssl_context", authority.client)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(ANSWER)
        await writer.drain()
        writer.close()

    client = HTTPClient(SystemClock())
    server = await asyncio.start_server(answer, "localhost", 0, ssl=authority.server("localhost"))
    async with server:
        port = server.sockets[0].getsockname()[1]
        assert client.certificate is None
        await client.request("GET", f"https://localhost:{port}/", timeout=10)
    await client.aclose()
    assert client.certificate is not None
    assert abs(client.certificate.ends_at - client.certificate.begins_at - 25 * 3600) < 2
    assert 0 < client.certificate.ends_at - SystemClock().time() <= DAY


async def test_it_is_told_in_time() -> None:
    """Fourteen days before the end; of one that lives for days, when a fifth of its life is left."""
    clock = ManualClock()
    provider = OAuthProvider(issuer="https://provider.example", client_id="app")
    check = CertificateCheck(provider, clock)
    assert (await check.ask()).status is Status.PASS, "nothing is known yet"
    now = clock.time()
    for life, left, expected in (
        (90 * DAY, 15 * DAY, Status.PASS),
        (90 * DAY, 13 * DAY, Status.WARN),
        (6 * DAY, 2 * DAY, Status.PASS),
        (6 * DAY, 1 * DAY, Status.WARN),
        (90 * DAY, -1 * DAY, Status.WARN),
    ):
        provider._http.certificate = Certificate(now + left - life, now + left)
        answer = await check.ask()
        assert answer.status is expected, (life, left)
        assert (answer.trouble is None) is (expected is Status.PASS)
    await provider.close()
