"""Clients that publish a metadata document: where it may come from, what it may say, how long it is believed."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpcore
import pytest
from tornado.web import Application, RequestHandler

from tests.authorization_server.kit import REDIRECT, Installation, World, answer_of, world
from tests.parts.certificates import Authority
from tests.parts.web_server import listening
from tornado_sse_auth import MemorySessionStore
from tornado_sse_auth.authorization_server import MetadataDocuments, metadata_documents
from tornado_sse_auth.authorization_server.errors import InvalidClientError
from tornado_sse_auth.authorization_server.public_network import is_public, resolve
from tornado_sse_auth.testing import ManualClock

HOST = "client.example"
URL = f"https://{HOST}/app.json"
PUBLIC = "93.184.215.14"


class Detour(httpcore.AsyncNetworkBackend):
    """Connects to the test's server, whatever address is asked for, and writes down which."""

    def __init__(self, port: int) -> None:
        self.asked: list[tuple[str, int]] = []
        self._port = port
        self._backend = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        self.asked.append((host, port))
        return await self._backend.connect_tcp("127.0.0.1", self._port, timeout)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


@dataclass
class Publisher:
    """The client's web server: what it answers is the test's choice."""

    document: dict[str, Any] = field(
        default_factory=lambda: {"client_id": URL, "client_name": "Published", "redirect_uris": [REDIRECT]}
    )
    headers: dict[str, str] = field(default_factory=dict)
    addresses: Sequence[str] = (PUBLIC,)
    status: int = 200
    body: bytes | None = None
    drip: bool = False
    chunked: bool = False
    requests: list[Mapping[str, str]] = field(default_factory=list)
    backend: Detour = field(init=False)
    documents: MetadataDocuments = field(init=False)

    async def resolve(self, host: str, port: int) -> Sequence[str]:
        return self.addresses


class Document(RequestHandler):
    """Answers as the publisher says."""

    def initialize(self, publisher: Publisher) -> None:
        self.publisher = publisher

    async def get(self) -> None:
        publisher = self.publisher
        publisher.requests.append(dict(self.request.headers))
        self.set_status(publisher.status)
        for name, value in publisher.headers.items():
            self.set_header(name, value)
        body = json.dumps(publisher.document).encode() if publisher.body is None else publisher.body
        if publisher.chunked:  # no length that would tell in advance
            self.write(body[:4000])
            await self.flush()
            body = body[4000:]
        if publisher.drip:
            for byte in body:
                self.write(bytes([byte]))
                await self.flush()
                await asyncio.sleep(0.2)
        self.finish(body)


@asynccontextmanager
async def publishing(clock: ManualClock, hosts: Sequence[str] = (HOST,)) -> AsyncIterator[Publisher]:
    authority, publisher = Authority(), Publisher()
    application = Application([(r".*", Document, {"publisher": publisher})])
    async with listening(application, ssl_options=authority.server(*hosts)) as origin:
        publisher.backend = Detour(int(origin.rpartition(":")[2]))
        publisher.documents = MetadataDocuments(
            clock, resolver=publisher.resolve, backend=publisher.backend, tls=authority.client()
        )
        yield publisher


@pytest.fixture
async def publisher(clock: ManualClock) -> AsyncIterator[Publisher]:
    async with publishing(clock) as running:
        yield running


@pytest.fixture
async def there(clock: ManualClock, publisher: Publisher) -> AsyncIterator[World]:
    async with world(MemorySessionStore(clock=clock), clock=clock, documents=publisher.documents) as running:
        yield running


async def refused(publisher: Publisher, url: str = URL) -> str:
    """Why a document is not used."""
    with pytest.raises(InvalidClientError) as error:
        await publisher.documents.fetch(url)
    return str(error.value)


async def test_a_client_that_publishes_itself(there: World, publisher: Publisher) -> None:
    """The whole way, with its name and host on the page; nothing was registered, and its document is read once."""
    publisher.document["client_uri"] = "https://elsewhere.example/"
    client, browser = Installation(there, client_id=URL), await there.signed_in()
    page = await browser.open("/oauth/authorize", **client.query())
    assert "Published" in page.text
    assert HOST in page.text
    assert "elsewhere" not in page.text
    response = await client.exchange(answer_of(await browser.press(page))["code"])
    assert response.status_code == 200
    client.tokens = response.json()
    assert (await client.refresh()).status_code == 200
    assert (await client.get()).status_code == 200
    assert len(publisher.requests) == 1
    assert publisher.requests[0]["Host"] == HOST
    assert publisher.backend.asked == [(PUBLIC, 443)]
    answer = await browser.http.get("/oauth/authorize", params=client.query(redirect_uri="https://evil.example/"))
    assert answer.status_code == 400
    secret = await client.call(
        grant_type="refresh_token", refresh_token=client.tokens["refresh_token"], client_secret="x"
    )
    assert secret.status_code == 401


async def test_two_installations(there: World) -> None:
    """SEC-46: one signs in again, is revoked; the other stays signed in."""
    alice = await there.signed_in()
    one, two = Installation(there, client_id=URL), Installation(there, client_id=URL)
    await one.connect(alice)
    await two.connect(alice)
    await one.connect(alice)
    assert (await two.get()).status_code == 200
    await one.call("/oauth/revoke", token=one.tokens["refresh_token"])
    assert (await one.get()).status_code == 401
    assert (await two.refresh()).status_code == 200


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "::1",
        "0.0.0.0",
        "::",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "fe80::1",
        "fe80::1%eth0",
        "fd00::1",
        "100.64.0.1",
        "224.0.0.1",
        "ff0e::1",
        "240.0.0.1",
        "255.255.255.255",
        "::ffff:10.0.0.1",
        "::ffff:93.184.215.14",
        "64:ff9b::a00:1",
        "64:ff9b:1::a00:1",
        "2002:a00:1::",
        "2001:0:a00:1::",
        "::10.0.0.1",
        "fec0::1",
        "192.88.99.1",
        "192.0.2.1",
        "2001:db8::1",
        "nonsense",
    ],
)
async def test_addresses_that_are_not_public(publisher: Publisher, address: str) -> None:
    """SEC-44: not connected to, also not where another address of the same name is a good one."""
    assert not is_public(address)
    for addresses in ([address], [PUBLIC, address], [address, PUBLIC]):
        publisher.addresses = addresses
        assert "ConnectError" in await refused(publisher, f"{URL}?{len(addresses)}{addresses[0]}".replace("%", ""))
    assert publisher.backend.asked == []
    assert publisher.requests == []


async def test_the_address_that_was_checked_is_connected_to(
    publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SEC-44: one resolution; a second answer would not be asked for, a proxy's variables are not read, and the
    certificate must be the name's."""
    answers = [[PUBLIC], ["127.0.0.1"]]

    async def changing(host: str, port: int) -> Sequence[str]:
        return answers.pop(0)

    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    publisher.documents._network._resolver = changing
    assert (await publisher.documents.fetch(URL)).name == "Published"
    assert publisher.backend.asked == [(PUBLIC, 443)]
    assert answers == [["127.0.0.1"]]
    publisher.documents._network._resolver = publisher.resolve
    assert "ConnectError" in await refused(publisher, "https://other.example/app.json")
    assert len(publisher.requests) == 1


async def test_the_systems_own_resolver_is_asked() -> None:
    """SEC-44: a name of this machine and an address written as one are refused alike; a name without address, too."""
    documents = MetadataDocuments(ManualClock())
    assert "127.0.0.1" in await resolve("localhost", 443) or "::1" in await resolve("localhost", 443)
    for host in ("localhost", "127.0.0.1", "[::1]", "2130706433", "0x7f.1", "name.invalid"):
        with pytest.raises(InvalidClientError, match="ConnectError"):
            await documents.fetch(f"https://{host}/app.json")


async def test_names_that_resolve_slowly_hold_up_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """SEC-08, REL-16: whoever keeps a name server that does not answer must not take the threads in which the
    provider's name is resolved, and files are read."""
    release, asked = threading.Event(), threading.Semaphore(0)

    def hang(*_: object, **__: object) -> list[Any]:
        asked.release()
        release.wait(60)
        raise socket.gaierror("no answer")

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    documents = MetadataDocuments(ManualClock())
    threads = min(32, (os.cpu_count() or 1) + 4)  # of the loop's own executor
    fetches = [asyncio.create_task(documents.fetch(f"https://{n}.slow.example/app.json")) for n in range(2 * threads)]
    try:
        await asyncio.sleep(0)
        async with asyncio.timeout(4):
            while not asked.acquire(blocking=False):  # noqa: ASYNC110 - a thread has no event for the loop
                await asyncio.sleep(0.01)
            assert await asyncio.to_thread(lambda: "done") == "done"
    finally:
        for fetch in fetches:
            fetch.cancel()
        release.set()
        await asyncio.gather(*fetches, return_exceptions=True)


@pytest.mark.parametrize(
    "url",
    [
        f"http://{HOST}/app.json",
        f"https://{HOST}",
        f"https://{HOST}/",
        f"https://u@{HOST}/app.json",
        f"https://u:p@{HOST}/app.json",
        f"https://{HOST}/a/../app.json",
        f"https://{HOST}/a/%2e%2e/app.json",
        f"https://{HOST}/./app.json",
        f"https://{HOST}/app.json#f",
        f"https://{HOST}:x/app.json",
        f"https://{HOST}/app.json\n",
        f"https://{HOST}\\@evil.example/app.json",
        f"https://{HOST}/" + "x" * 1000,
        "https://ä.example/app.json",
    ],
)
async def test_urls_that_are_no_client_id(publisher: Publisher, url: str) -> None:
    """SEC-45: nothing is asked for."""
    assert "no acceptable URL" in await refused(publisher, url)
    assert publisher.backend.asked == []


Change = Callable[[Publisher], Any]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda publisher: setattr(publisher, "status", 404),
        lambda publisher: (setattr(publisher, "status", 302), publisher.headers.update(Location=f"{URL}2")),
        lambda publisher: setattr(publisher, "status", 500),
        lambda publisher: setattr(publisher, "body", b"x" * 6000),
        lambda publisher: (publisher.document.update(padding="x" * 6000), setattr(publisher, "chunked", True)),
        lambda publisher: publisher.document.update(padding="x" * 6000),
        lambda publisher: (
            setattr(publisher, "body", gzip.compress(json.dumps(publisher.document).encode())),
            publisher.headers.update({"Content-Encoding": "gzip"}),
        ),
        lambda publisher: setattr(publisher, "body", b"[]"),
        lambda publisher: setattr(publisher, "body", b"{"),
        lambda publisher: setattr(publisher, "body", b""),
        lambda publisher: publisher.document.update(client_id=f"{URL}/"),
        lambda publisher: publisher.document.update(client_id=URL.replace("app", "App")),
        lambda publisher: publisher.document.pop("client_id"),
        lambda publisher: setattr(publisher, "body", b'{"x":' + b"[" * 64 + b"]" * 64 + b"}"),
        lambda publisher: publisher.document.update(client_secret="x"),
        lambda publisher: publisher.document.update(token_endpoint_auth_method="client_secret_post"),
        lambda publisher: publisher.document.update(token_endpoint_auth_method="private_key_jwt"),
        lambda publisher: publisher.document.update(redirect_uris=["javascript:alert(1)"]),
        lambda publisher: publisher.document.update(redirect_uris=[]),
    ],
)
async def test_documents_that_are_not_used(publisher: Publisher, clock: ManualClock, spoil: Change) -> None:
    """SEC-45: `invalid_client`; a redirect is not followed; for a minute nobody asks again."""
    good = Publisher(document=dict(publisher.document))
    spoil(publisher)
    for _ in range(3):
        await refused(publisher)
    assert len(publisher.requests) == 1
    publisher.document, publisher.status, publisher.body = good.document, 200, None
    publisher.headers.clear()
    await refused(publisher)
    clock.advance(61)
    assert (await publisher.documents.fetch(URL)).name == "Published"


async def test_how_deep_a_document_may_be(publisher: Publisher, clock: ManualClock) -> None:
    """SEC-45, SEC-53: as deep as any JSON from outside, which is an option."""
    publisher.document["x"] = [[[[[[]]]]]]
    publisher.documents = MetadataDocuments(
        clock, resolver=publisher.resolve, backend=publisher.backend, tls=publisher.documents._tls, max_json_depth=6
    )
    assert "nested too deeply" in await refused(publisher)
    publisher.document["x"] = [[[[[]]]]]
    clock.advance(61)
    assert (await publisher.documents.fetch(URL)).name == "Published"


async def test_a_document_that_drips(publisher: Publisher, monkeypatch: pytest.MonkeyPatch) -> None:
    """SEC-45: one deadline over everything."""
    monkeypatch.setattr("tornado_sse_auth.authorization_server.metadata_documents.TIMEOUT", 0.5)
    publisher.drip = True
    async with asyncio.timeout(10):
        assert "no complete document" in await refused(publisher)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, 300),
        ("max-age=100", 100),
        ("public, max-age=3600", 3600),
        ("max-age=99999999", 86_400),
        ("no-store", 0),
        ("no-cache", 0),
        ("max-age=0", 0),
    ],
)
async def test_how_long_a_document_is_believed(
    publisher: Publisher, clock: ManualClock, header: str | None, seconds: int
) -> None:
    """SEC-45: as its headers say, a day at most."""
    if header is not None:
        publisher.headers["Cache-Control"] = header
    fetch: Callable[[], Awaitable[Any]] = lambda: publisher.documents.fetch(URL)  # noqa: E731
    await fetch()
    if seconds:
        clock.advance(seconds - 1)
        await fetch()
        assert len(publisher.requests) == 1
        clock.advance(1.5)
    await fetch()
    assert len(publisher.requests) == 2


async def test_who_had_to_wait_for_others_is_not_refused_for_a_minute(
    publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SEC-45, SEC-08: somebody keeps every slot busy with documents that never come; afterwards all is as before."""
    monkeypatch.setattr(metadata_documents, "TIMEOUT", 0.3)
    slots = publisher.documents._slots
    async with AsyncExitStack() as busy:
        for _ in range(metadata_documents.MAX_FETCHES):
            await busy.enter_async_context(slots)
        assert "no complete document" in await refused(publisher)
    monkeypatch.setattr(metadata_documents, "TIMEOUT", 10.0)
    assert (await publisher.documents.fetch(URL)).name == "Published"
