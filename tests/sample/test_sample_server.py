"""The sample server as a process, used as its README says."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from sample_server.demo_session import demo_bearer
from tests.authorization_server.kit import answer_of, form_of
from tests.parts.process import ServerProcess
from tests.parts.sse_client import SSEClient
from tests.parts.statsd import StatsDListener
from tornado_sse_auth import ConfigurationError

CURL = r'curl -N -H "Authorization: Bearer (?P<bearer>[\w-]+)" (?P<url>http://127\.0\.0\.\d:\d+)/events'
REDIRECT = "http://127.0.0.1:33418/callback"


@dataclass(frozen=True)
class Sample:
    """The running process, and what it printed for the terminal."""

    process: ServerProcess
    url: str
    bearer: str

    def client(self) -> httpx.AsyncClient:
        """Signed in as the demo user."""
        headers = {"Authorization": f"Bearer {self.bearer}"}
        return httpx.AsyncClient(base_url=self.url, headers=headers, trust_env=False)


@contextmanager
def running(*options: str) -> Iterator[Sample]:
    """The sample server with the demo provider on a free port."""
    command = [sys.executable, "-m", "sample_server", "--port", "0", *options]
    found: list[re.Match[str]] = []

    def ready(process: ServerProcess) -> None:
        process.wait_for_line("Ctrl-C ends it", 30)
        match = re.search(CURL, process.output)
        assert match is not None, process.failure("no curl line")
        found.append(match)

    with ServerProcess("sample server", command, ready=ready) as process:
        yield Sample(process, found[0]["url"], found[0]["bearer"])


@pytest.fixture
async def sample() -> AsyncIterator[Sample]:
    with running() as started:
        yield started


async def test_the_printed_line_works_as_it_stands(sample: Sample) -> None:
    """`open` at once, then a `tick` each second; what is published arrives; the process ends with status 0."""
    async with sample.client() as client:
        me = (await client.get("/me")).json()
        assert me["claims"]["name"] == "Ada Lovelace"
        assert {"content:read", "events:write"} <= set(me["scopes"])
        async with SSEClient(f"{sample.url}/events", bearer=sample.bearer) as stream:
            opened = (await stream.next()).json()
            assert opened["user_id"] == me["user_id"]
            assert opened["session_id"] == me["session_id"]
            ticks = [(await stream.next("tick")).json() for _ in range(2)]
            assert [tick["seq"] for tick in ticks] == [1, 2]
            assert 0 < ticks[0]["token_expires_in"] <= 60
            published = await client.post("/publish", json={"text": "h\u00e9llo\nthere"})
            assert published.status_code == 202
            message = await stream.next("message")
            assert message.json() == {"text": "h\u00e9llo\nthere"}
            assert message.id == published.json()["id"]
            for body in (b"{", b"[" * 100_000, b"\xff", b'{"a": NaN}', b"1" * 5000):
                answer = await client.post("/publish", content=body)
                assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")
            big = await client.post("/publish", json="x" * 2_000_000)
            assert (big.status_code, big.json()["error"]) == (413, "request_too_large")
            sample.process.signal(signal.SIGTERM)
            assert (await stream.next("end")).json() == {"reason": "server_shutdown"}
    assert sample.process.wait(15) == 0
    assert "Traceback" not in sample.process.output
    assert sample.process.output.count(sample.bearer) == 1  # in the line that is meant to show it


async def test_the_page_and_its_policy(sample: Sample) -> None:
    """No inline script, nothing from elsewhere, in nobody's frame; unknown paths are 404 as JSON."""
    async with httpx.AsyncClient(base_url=sample.url, trust_env=False) as visitor:
        page = await visitor.get("/")
        assert page.status_code == 200
        policy = page.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        for path in re.findall(r'(?:src|href)="(/[^"]*)"', page.text):
            asset = await visitor.get(path)
            assert asset.status_code in (200, 302), path
        module = await visitor.get("/auth/client.js")
        assert module.headers["Content-Type"].startswith("text/javascript")
        again = await visitor.get("/auth/client.js", headers={"If-None-Match": module.headers["ETag"]})
        assert again.status_code == 304
        missing = await visitor.get("/nothing")
        assert (missing.status_code, missing.json()["error"]) == (404, "not_found")
        for path, status in (("/livez", 200), ("/readyz", 200), ("/health", 200)):
            answer = await visitor.get(path, headers={"Host": "10.1.2.3"})
            assert answer.status_code == status
            assert answer.json()["status"] in ("pass", "warn"), "a busy machine is late"
            assert answer.headers["Content-Type"] == "application/health+json"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--public-url=http://app.example", "--issuer=https://i.example", "--client-id=x"], "https"),
        (["--public-url=https://app.example/path", "--issuer=https://i.example", "--client-id=x"], "without a path"),
        (["--public-url=https://app.example"], "demo provider"),
        (["--processes=2"], "--mongodb-uri"),
        (["--issuer=https://i.example"], "--client-id"),
        (["--mongodb-driver=other"], "motor or pymongo"),
        (["--nonsense=1"], "nonsense"),
        (["--statsd=nowhere"], "host:port"),
        (["--trusted-proxies=everybody"], "networks"),
        (["--encryption-keys=abc"], "encryption key 1"),
        (["--max-streams=many"], "--max-streams is a number, not 'many'"),
    ],
)
def test_options_that_cannot_work(options: list[str], says: str) -> None:
    """One line for the person at the terminal, status 2, no traceback."""
    ended = subprocess.run(
        [sys.executable, "-m", "sample_server", "--port=0", *options],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ended.returncode == 2, ended.stderr
    assert says in ended.stderr
    assert "Traceback" not in ended.stderr


def test_options_from_the_environment() -> None:
    """SAMPLE_<NAME>, with the command line before it."""
    from sample_server.options import parse_options

    options = parse_options(["x", "--port", "9000"], {"SAMPLE_PORT": "1", "SAMPLE_MAX_STREAMS_PER_USER": "7"})
    assert (options.port, options.max_streams_per_user) == (9000, 7)
    assert options.public_url == "http://127.0.0.1:9000"
    with pytest.raises(ConfigurationError, match="SAMPLE_IDLE_TTL is a number, not 'long'"):
        parse_options(["x"], {"SAMPLE_IDLE_TTL": "long"})
    assert "hunter2" not in repr(parse_options(["x"], {"SAMPLE_CLIENT_SECRET": "hunter2", **os.environ}))


async def test_options_take_effect(statsd: StatsDListener) -> None:
    """Each as the reference says, at a running server."""
    options = (
        "--scopes=openid offline_access profile",
        "--grant-scopes=reports:read reports:write",
        "--session-ttl=3600",
        "--allowed-hosts=other.example",
        "--allowed-origins=https://pages.example",
        "--trusted-proxies=127.0.0.0/8",
        "--max-streams=2",
        "--max-streams-per-user=1",
        f"--statsd={statsd.host}:{statsd.port}",
        "--statsd-prefix=pre",
        "--statsd-instance=i1",
    )
    with running(*options) as sample:
        ada = sample.bearer
        async with sample.client() as client:
            scopes = set((await client.get("/me")).json()["scopes"])
            assert scopes == {"openid", "offline_access", "profile", "reports:read", "reports:write"}
            allowed = await client.get("/me", headers={"Host": "other.example", "X-Request-ID": "from-the-proxy"})
            assert (allowed.status_code, allowed.headers["X-Request-ID"]) == (200, "from-the-proxy")
            page = await client.get("/me", headers={"Origin": "https://pages.example"})
            assert page.headers["Access-Control-Allow-Origin"] == "https://pages.example"
            hidden = {"Host": "evil.example", "X-Forwarded-For": "203.0.113.9"}
            assert (await client.get("/me", headers=hidden)).status_code == 421
            sample.process.wait_for_line(r'audit .*"remote":"203\.0\.113\.9","outcome":"invalid_host"')
        bearers = {name: (await demo_bearer(sample.url, name)).reveal() for name in ("grace", "alan")}
        async with (
            SSEClient(f"{sample.url}/events", bearer=ada) as first,
            SSEClient(f"{sample.url}/events", bearer=ada) as second,
            SSEClient(f"{sample.url}/events", bearer=bearers["grace"]) as other,
            SSEClient(f"{sample.url}/events", bearer=bearers["alan"]) as last,
        ):
            ends = (await first.next("open")).json()["expires_at"]
            assert ends <= time.time() + 3600
            assert [stream.status for stream in (second, other, last)] == [429, 200, 503]
            for stream, code in ((second, "too_many_streams"), (last, "overloaded")):
                assert json.loads(await stream.body())["error"] == code
                assert int(stream.response.headers["Retry-After"]) >= 1
    assert (await statsd.wait_for("pre.stream.open.i1"))[-1].value == 0
    assert (await statsd.wait_for("pre.stream.opened"))[0].value >= 1


async def test_beyond_loopback_it_says_so_and_nobody_signs_in_from_there() -> None:
    """SEC-08: as in a container, with the demo provider: the server is reached from elsewhere, which it warns of; the
    provider, where anybody is anybody, is not, so that nobody there can sign in."""
    with running("--address=0.0.0.0", "--public-url=http://127.0.0.1:0") as sample:
        assert "*** IT LISTENS BEYOND THIS MACHINE, in plain http" in sample.process.output
        elsewhere = httpx.URL(sample.url).copy_with(host="127.0.0.2")  # an address that is not the demo provider's
        async with httpx.AsyncClient(trust_env=False, headers={"Host": sample.url.removeprefix("http://")}) as client:
            login = await client.get(elsewhere.join("/auth/login"))
            provider = httpx.URL(login.headers["Location"])
            assert (login.status_code, provider.host) == (302, "127.0.0.1")
            with pytest.raises(httpx.ConnectError):
                await client.get(provider.copy_with(host="127.0.0.2"))
    with running() as sample:
        assert "LISTENS BEYOND" not in sample.process.output


async def tokens_of_an_installation(user: httpx.AsyncClient) -> dict[str, Any]:
    """What an MCP client gets whose user, signed in here, agrees."""
    verifier = secrets.token_urlsafe(48)
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    document = {"client_name": "Editor", "redirect_uris": [REDIRECT], "token_endpoint_auth_method": "none"}
    registered = (await user.post("/oauth/register", json=document)).json()
    asked = {"client_id": registered["client_id"], "redirect_uri": REDIRECT}
    query = {**asked, "response_type": "code", "code_challenge": challenge, "code_challenge_method": "S256"}
    fields = form_of((await user.get("/oauth/authorize", params=query)).text)
    headers = {"Origin": str(user.base_url).rstrip("/")}
    agreed = await user.post(
        "/oauth/authorize", data={**fields, "decision": "allow"}, headers=headers, follow_redirects=False
    )
    presented = {"grant_type": "authorization_code", "code": answer_of(agreed)["code"], "code_verifier": verifier}
    tokens: dict[str, Any] = (await user.post("/oauth/token", data={**asked, **presented})).json()
    return tokens


async def test_address_and_lives_take_effect() -> None:
    """It listens where it is told; a session that nobody uses ends, and one in use beside it does not; access tokens
    live as long as told."""
    with running("--address=127.0.0.2", "--idle-ttl=4", "--access-token-ttl=7") as sample:
        assert sample.url.startswith("http://127.0.0.2:")
        async with (
            httpx.AsyncClient(base_url=sample.url, follow_redirects=True, trust_env=False, timeout=20) as user,
            asyncio.timeout(60),
        ):
            unused = (await user.get("/me", headers={"Authorization": f"Bearer {sample.bearer}"})).json()["session_id"]
            used = (await user.get("/auth/login", params={"login_hint": "ada", "return_to": "/me"})).json()[
                "session_id"
            ]
            assert (await tokens_of_an_installation(user))["expires_in"] == 7
            there = {unused, used}
            while unused in there:
                await asyncio.sleep(0.2)
                answer = await user.get("/auth/sessions")
                there = {session["id"] for session in answer.raise_for_status().json()["sessions"]}
            assert there == {used}


async def test_a_second_signal_ends_at_once(sample: Sample) -> None:
    """While the first one still spreads the ends of the streams over the drain."""
    async with AsyncExitStack() as stack:
        streams = [
            await stack.enter_async_context(SSEClient(f"{sample.url}/events", bearer=sample.bearer)) for _ in range(50)
        ]
        sample.process.signal(signal.SIGTERM)
        ends = [asyncio.ensure_future(stream.next("end")) for stream in streams]
        await asyncio.wait(ends, timeout=15, return_when=asyncio.FIRST_COMPLETED)
        sample.process.signal(signal.SIGTERM)
        assert await asyncio.to_thread(sample.process.wait, 15) == 1
        for end in ends:
            end.cancel()
        await asyncio.gather(*ends, return_exceptions=True)
        assert not all(event.event == "end" for event in (stream.events[-1] for stream in streams))
