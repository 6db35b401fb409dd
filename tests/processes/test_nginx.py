"""Several processes behind nginx, with the very configuration that the how-to page gives."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.parts import provider as oidc
from tests.parts.mongod import ExternalMongo, ReplicaSet
from tests.parts.nginx import Certificate, Nginx, find_nginx
from tests.parts.process import free_port
from tests.parts.require import require
from tests.parts.sample_server import SampleServer, sample_servers
from tests.parts.sse_client import SSEClient

SITE = Path(__file__).parents[2] / "docs" / "howto" / "files" / "nginx.conf"
pytestmark = pytest.mark.real("nginx")


@dataclass
class Site:
    """nginx before two processes, and somebody who has signed in through it."""

    url: str
    certificate: Certificate
    servers: list[SampleServer]
    bearer: str
    cookie: str

    @property
    def host(self) -> str:
        """What clients ask for."""
        return self.url.removeprefix("https://")

    def client(self, **more: Any) -> httpx.AsyncClient:
        """Their requests; a bearer, which needs no browser."""
        headers = {"Authorization": f"Bearer {self.bearer}", **more.pop("headers", {})}
        if "transport" not in more:
            more["verify"] = self.certificate.trust
        return httpx.AsyncClient(base_url=self.url, headers=headers, trust_env=False, timeout=10, **more)

    def stream(self, *, last_event_id: str | None = None) -> SSEClient:
        """Their `/events`."""
        return SSEClient(
            f"{self.url}/events", bearer=self.bearer, last_event_id=last_event_id, verify=self.certificate.trust
        )

    async def publish(self, data: Any) -> str:
        """An event for all their streams; its id."""
        async with self.client() as client:
            answer = await client.post("/publish", json=data)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    async def open_streams(self, server: SampleServer) -> int:
        """How many of their streams that process holds."""
        headers = {"Authorization": f"Bearer {self.bearer}", "Host": self.host}
        async with httpx.AsyncClient(base_url=server.url, headers=headers, trust_env=False) as client:
            sessions = (await client.get("/auth/sessions")).json()["sessions"]
        return sum(session["open_streams"] for session in sessions)


def configured(text: str, port: int, certificate: Certificate, servers: list[int]) -> str:
    """The page's configuration for this machine: nothing else is changed."""
    changes = {
        "listen 443 ": f"listen 127.0.0.1:{port} ",
        "server_name streams.example;": "server_name localhost;",
        "/etc/ssl/streams.example.pem": str(certificate.file),
        "/etc/ssl/private/streams.example.key": str(certificate.key_file),
        "server 127.0.0.1:8001 ": f"server 127.0.0.1:{servers[0]} ",
        "server 127.0.0.1:8002 ": f"server 127.0.0.1:{servers[1]} ",
    }
    for old, new in changes.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


@pytest.fixture
async def site(
    provider: oidc.Provider, mongod: ReplicaSet | ExternalMongo, database_name: str, account: str, tmp_path: Path
) -> AsyncIterator[Site]:
    require(find_nginx)
    port = free_port()
    url = f"https://localhost:{port}"
    certificate = Certificate(tmp_path)
    options = (f"--public-url={url}", "--trusted-proxies=127.0.0.1/32")
    async with sample_servers(provider, [mongod.uri] * 2, database_name, *options) as servers:
        text = configured(SITE.read_text(), port, certificate, [server.port for server in servers])
        with Nginx(tmp_path, text, port=port):
            await provider.add_redirect_uri(f"{url}/auth/callback")
            done = await oidc.sign_in(f"{url}/auth/login", account=account, verify=certificate.trust)
            assert done.response.status_code == 302, done.response.text
            cookie = f"__Host-session={done.cookies['__Host-session']}"
            async with httpx.AsyncClient(base_url=url, trust_env=False, verify=certificate.trust) as client:
                token = await client.post(
                    "/auth/token", headers={"Cookie": cookie, "Origin": url}, json={"grant": "session"}
                )
            yield Site(url, certificate, servers, token.json()["access_token"], cookie)


async def test_streams_pass_live_and_resume_elsewhere(site: Site) -> None:
    """SEC-18, SEC-20, REL-19: an event comes when it is published and not when a buffer is full; both processes get
    streams; when one is replaced, its streams come back at the other with nothing missing, and no request fails."""
    async with AsyncExitStack() as stack:
        streams = [await stack.enter_async_context(site.stream()) for _ in range(8)]
        for stream in streams:
            assert stream.status == 200
            assert stream.response.headers["Content-Type"].startswith("text/event-stream")
            await stream.next("open")
            await stream.next("tick")
        held = [await site.open_streams(server) for server in site.servers]
        assert sum(held) == 8
        assert min(held) >= 2
        numbers = [await site.publish(n) for n in range(3)]
        for stream in streams:
            got = [await stream.next("message") for _ in range(3)]
            assert [(event.id, event.json()) for event in got] == list(zip(numbers, range(3), strict=True))

        leaving = site.servers[0]
        os.kill(leaving.pid, signal.SIGTERM)
        statuses = set()
        published = [await site.publish(3)]
        async with site.client() as client:
            while leaving.alive:
                statuses.add((await client.get("/me")).status_code)
                published.append(await site.publish(3 + len(published)))
        assert statuses == {200}
        assert leaving.returncode == 0
        ended = [stream for stream in streams if any(event.event == "end" for event in stream.events)]
        assert len(ended) == held[0]
        published.append(await site.publish("last"))
        for stream in ended:
            seen = [event.id for event in stream.events if event.event == "message"]
            async with site.stream(last_event_id=stream.last_event_id) as again:
                while not seen or seen[-1] != published[-1]:
                    seen.append((await again.next("message")).id)
                assert "gap" not in {event.event for event in again.events}
            assert seen == [*numbers, *published]


async def test_what_the_processes_hear_of_the_client(site: Site) -> None:
    """SEC-18, SEC-20: the client's own address, whatever it claims; the request id that nginx gave; the public name
    and no other. Probes are not for everybody. By HTTP/2, too, where browsers have room for more than six streams."""
    curl = await asyncio.create_subprocess_exec(
        *("curl", "--silent", "--no-buffer", "--include", "--http2", "--cacert", str(site.certificate.file)),
        *("--max-time", "30", "--header", f"Authorization: Bearer {site.bearer}", f"{site.url}/events"),
        stdout=asyncio.subprocess.PIPE,
    )
    assert curl.stdout is not None
    async with asyncio.timeout(30):
        assert (await curl.stdout.readline()).startswith(b"HTTP/2 200")
        await curl.stdout.readuntil(b"event: open")
        await curl.stdout.readuntil(b"event: tick")
        await curl.stdout.readuntil(b"event: tick")
    curl.terminate()
    await curl.communicate()

    forged = {"X-Forwarded-For": "203.0.113.9", "X-Request-ID": "mine", "X-Forwarded-Host": "evil.example"}
    elsewhere = httpx.AsyncHTTPTransport(local_address="127.0.0.2", verify=site.certificate.trust)
    browser = {**forged, "Cookie": site.cookie, "Origin": site.url}
    async with httpx.AsyncClient(base_url=site.url, transport=elsewhere, headers=browser) as client:
        me = await client.get("/me")
        assert me.status_code == 200
        assert re.fullmatch(r"[0-9a-f]{32}", me.headers["X-Request-ID"])
        assert (await client.get("/me", headers={"Host": "evil.example"})).status_code == 421
        for path in ("/livez", "/readyz", "/health"):
            assert (await client.get(path)).status_code == 404
        assert (await client.post("/auth/logout")).status_code == 204
    lines = [line for server in site.servers for line in server.audit()]
    assert {line["remote"] for line in lines if line["event"] in ("sign-out", "denial")} == {"127.0.0.2"}
    assert "203.0.113.9" not in json.dumps(lines)


def kernel_buffers() -> int:
    """Bytes that may be under way from a process through nginx to a client that does not read: what this kernel lets
    the two senders and nginx's side of the first connection grow to, and two events of ours."""
    receive, send = (
        int(Path(f"/proc/sys/net/ipv4/tcp_{name}").read_text(encoding="ascii").split()[2]) for name in ("rmem", "wmem")
    )
    return receive + 2 * send + 2 * 2**20


async def test_a_client_that_does_not_read_is_felt_behind_the_proxy(site: Site) -> None:
    """REL-20: its stream ends as `slow_consumer`; others get every event meanwhile."""
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.connect(("127.0.0.1", int(site.url.rpartition(":")[2])))
        slow.settimeout(10)
        with site.certificate.trust.wrap_socket(slow, server_hostname="localhost") as talking:
            request = f"GET /events HTTP/1.1\r\nHost: {site.host}\r\nAuthorization: Bearer {site.bearer}\r\n\r\n"
            await asyncio.to_thread(talking.sendall, request.encode())
            await asyncio.to_thread(talking.recv, 4096)
            async with site.stream() as other:
                await other.next("open")
                assert sum([await site.open_streams(server) for server in site.servers]) == 2
                sent, bound = 0, 1 + kernel_buffers() // 900_000
                while sum([await site.open_streams(server) for server in site.servers]) == 2:
                    await site.publish("x" * 900_000)
                    sent += 1
                    assert len((await other.next("message")).data) > 900_000
                    assert sent <= bound, "more than the kernel's buffers hold, and the process has not noticed"
