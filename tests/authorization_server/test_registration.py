"""Registration: who may, with what, and how many are kept."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from tests.authorization_server import kit
from tests.authorization_server.kit import Installation, World, world
from tornado_sse_auth import MemorySessionStore
from tornado_sse_auth.testing import ManualClock

CURSOR = ["cursor://anysphere.cursor-mcp/oauth/callback", "https://www.cursor.com/agents/cb", kit.REDIRECT]
GOOD: dict[str, Any] = {"redirect_uris": [kit.REDIRECT], "token_endpoint_auth_method": "none"}


async def test_a_public_client_registers_again_and_is_the_same(processes: tuple[World, World]) -> None:
    """In every process; what nobody uses of its metadata makes no difference, what somebody uses does."""
    first, second = processes
    answers = await asyncio.gather(
        *(Installation(world).register(software_id=f"v{number}") for number in range(5) for world in processes)
    )
    ids = {answer["client_id"] for answer in answers}
    assert len(ids) == 1
    assert all("client_secret" not in answer for answer in answers)
    other = await Installation(second).register(client_name="Another")
    assert other["client_id"] not in ids
    client = await first.installation()
    assert client.client_id in ids
    private = [(await Installation(first).register(token_endpoint_auth_method="client_secret_post")) for _ in range(2)]
    assert len({answer["client_id"] for answer in private}) == len({answer["client_secret"] for answer in private}) == 2


async def test_the_answer_is_what_was_registered(here: World) -> None:
    """RFC 7591, section 3.2.1, with what was left out filled in."""
    answer = await Installation(here).register(
        redirect_uris=[
            "cursor://anysphere.cursor-mcp/oauth/callback",
            "https://www.cursor.com/agents/cb",
            kit.REDIRECT,
        ],
        client_uri="https://cursor.com/",
        grant_types=["authorization_code", "refresh_token", "urn:ietf:params:oauth:grant-type:jwt-bearer"],
        scope="content:read",
        contacts=["a@b.example"],
        jwks={"keys": []},
    )
    assert answer.pop("client_id")
    assert answer.pop("client_id_issued_at") == here.clock.time()
    assert answer == {
        "client_name": "Editor",
        "client_uri": "https://cursor.com/",
        "redirect_uris": CURSOR,
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "token_endpoint_auth_method": "none",
    }


@pytest.mark.parametrize(
    "uri",
    [
        "javascript:alert(1)",
        "JavaScript:alert(1)",
        "data:text/html,x",
        "file:///etc/passwd",
        "blob:https://a.example/x",
        "vbscript:x",
        "about:blank",
        "ws://127.0.0.1/",
        "wss://a.example/",
        "http://evil.example/",
        "http://127.0.0.1.evil.example/cb",
        "http://localhost.evil.example/cb",
        "http://LOCALHOST@evil.example/",
        "http://[::2]/cb",
        "http://127.0.0.1:x/cb",
        "https://a.example/cb#f",
        "https://u@a.example/cb",
        "https://u:p@a.example/cb",
        "https://a.example/../cb",
        "https://a.example/a/%2e%2e/cb",
        "https://a.example/*",
        "https://*.a.example/cb",
        "https:///cb",
        "https://",
        "/cb",
        "cb",
        "",
        "https://a.example/a b",
        "https://a.example/\\evil",
        "https://a.example/\n",
        "https://ä.example/",
        "https://a.example/" + "x" * 2000,
    ],
)
async def test_redirect_uris_that_lead_elsewhere(here: World, uri: str) -> None:
    """SEC-30: 400 `invalid_redirect_uri`."""
    answer = await here.http.post("/oauth/register", json={**GOOD, "redirect_uris": [kit.REDIRECT, uri]})
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_redirect_uri")


async def test_a_client_with_a_secret_is_reached_by_https(here: World) -> None:
    """A private-use scheme belongs to whoever claims it: nothing for a client that can keep a secret."""
    document = {**GOOD, "redirect_uris": ["cursor://x/cb"], "token_endpoint_auth_method": "client_secret_basic"}
    answer = await here.http.post("/oauth/register", json=document)
    assert answer.json()["error"] == "invalid_redirect_uri"


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"redirect_uris": []}, "invalid_redirect_uri"),
        ({"redirect_uris": None}, "invalid_redirect_uri"),
        ({"redirect_uris": [kit.REDIRECT] * 21}, "invalid_redirect_uri"),
        ({"redirect_uris": kit.REDIRECT}, "invalid_client_metadata"),
        ({"redirect_uris": [5]}, "invalid_client_metadata"),
        ({"token_endpoint_auth_method": "private_key_jwt"}, "invalid_client_metadata"),
        ({"token_endpoint_auth_method": ["none"]}, "invalid_client_metadata"),
        ({"grant_types": ["client_credentials"]}, "invalid_client_metadata"),
        ({"grant_types": "authorization_code"}, "invalid_client_metadata"),
        ({"response_types": ["token"]}, "invalid_client_metadata"),
        ({"response_types": [{}]}, "invalid_client_metadata"),
        ({"client_name": "x" * 10_000}, "invalid_client_metadata"),
        ({"client_name": {"$gt": ""}}, "invalid_client_metadata"),
        ({"client_uri": "javascript:alert(1)"}, "invalid_client_metadata"),
        ({"logo_uri": "data:image/png;base64,x"}, "invalid_client_metadata"),
        ({"tos_uri": "https://u@evil.example/"}, "invalid_client_metadata"),
        ({"policy_uri": 5}, "invalid_client_metadata"),
        ({"client_uri": "https://a.example/\u202e"}, "invalid_client_metadata"),
        ({"client_uri": 'https://a.example/">\n<script>'}, "invalid_client_metadata"),
        ({"client_uri": "https://a.example/" + "x" * 10_000}, "invalid_client_metadata"),
        ({"logo_uri": "javascript:alert(1)"}, "invalid_client_metadata"),
        ({"logo_uri": "https://a.example/\u0000.png"}, "invalid_client_metadata"),
        ({"logo_uri": "https://a.example/" + "x" * 10_000}, "invalid_client_metadata"),
    ],
    ids=str,
)
async def test_metadata_that_is_not_acceptable(here: World, change: dict[str, Any], error: str) -> None:
    """SEC-31, SEC-57: 400 with the codes of RFC 7591, section 3.2.2."""
    answer = await here.http.post("/oauth/register", json={**GOOD, **change})
    assert (answer.status_code, answer.json()["error"]) == (400, error)


async def test_what_is_no_registration(here: World) -> None:
    """Another method, another media type, no JSON object, too large."""
    post = here.http.post
    kind = {"Content-Type": "application/json"}
    assert (await here.http.get("/oauth/register")).status_code == 405
    assert (await post("/oauth/register", data={"a": "b"})).json()["error"] == "invalid_request"
    for body in (b"[]", b"{", b"\xff", b'"x"', b"[" * 10_000):
        answer = await post("/oauth/register", content=body, headers=kind)
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_client_metadata")
    assert (await post("/oauth/register", content=b" " * 70_000 + b"{}", headers=kind)).status_code == 413


async def test_a_flood_is_one_peers(here: World) -> None:
    """SEC-43: 429 with Retry-After for the peer that floods, from its minute's end on it may again."""
    for _ in range(60):
        assert (await here.http.post("/oauth/register", json=GOOD)).status_code == 201
    limited = await here.http.post("/oauth/register", json=GOOD)
    assert (limited.status_code, limited.json()["error"]) == (429, "rate_limited")
    here.clock.advance(float(limited.headers["Retry-After"]))
    assert (await here.http.post("/oauth/register", json=GOOD)).status_code == 201


async def test_ten_thousand_registrations(clock: ManualClock) -> None:
    """SEC-43: at the row's size. From one peer nearly all are 429; from many, each within its limit, all pass and the
    oldest unused make room; a client with a grant stays, another peer can still register, and an hour later all that
    nobody used are gone."""
    store = MemorySessionStore(clock=clock)
    async with world(store, clock=clock, trusted_proxies=["127.0.0.0/8"]) as here:
        used = await here.installation()
        one = await flood(here, ["10.0.0.1"] * 1000)
        assert one == Counter({201: 60, 429: 940})
        many = await flood(here, [f"10.1.{number % 200}.1" for number in range(10_000)])
        assert many == Counter({201: 10_000})
        kept = await store.kept.trim("client", keep=0, expiring_before=0.0)
        assert kept.left == 10_000
        assert (await used.refresh()).status_code == 200
        assert await flood(here, ["10.2.0.1"]) == Counter({201: 1})
        clock.advance(3600)
        assert await flood(here, ["10.2.0.1"]) == Counter({201: 1})
        assert (await store.kept.trim("client", keep=0, expiring_before=0.0)).left == 2
        assert (await used.refresh()).status_code == 200


async def flood(here: World, peers: Sequence[str]) -> Counter[int]:
    """A client of another name from each of these peers, over one connection; how many answers of each status."""
    host = here.url.removeprefix("http://")
    address, _, port = host.rpartition(":")
    reader, writer = await asyncio.open_connection(address, int(port))
    statuses: Counter[int] = Counter()
    for number, peer in enumerate(peers):
        body = json.dumps({**GOOD, "client_name": f"{peer} {number}"}).encode()
        writer.write(
            f"POST /oauth/register HTTP/1.1\r\nHost: {host}\r\nX-Forwarded-For: {peer}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        head = await reader.readuntil(b"\r\n\r\n")
        status = int(head.split()[1])
        statuses[status] += 1
        fields = dict(line.lower().split(": ", 1) for line in head.decode().split("\r\n")[1:] if line)
        assert status != 429 or int(fields["retry-after"]) >= 1
        await reader.readexactly(int(fields["content-length"]))
    writer.close()
    await writer.wait_closed()
    return statuses


@pytest.fixture
async def few(clock: ManualClock) -> AsyncIterator[World]:
    """A server that keeps few clients."""
    async with world(MemorySessionStore(clock=clock), clock=clock, max_clients=5) as running:
        yield running


async def test_who_stays(few: World) -> None:
    """SEC-43: never used, a client goes after an hour; at the ceiling (`max_clients`) the oldest of those goes first;
    used ones stay for 90 days after the last use, and nobody is locked out."""
    here = few
    browser = await here.signed_in()
    names = [{"client_name": f"Used {number}"} for number in range(3)]
    used = [await here.installation(browser, metadata=name) for name in names]
    ids = []
    for number in range(8):
        here.clock.advance(10)
        ids.append((await Installation(here).register(client_name=f"Unused {number}"))["client_id"])
    known = [await here.auth.kept.get("client", client_id) is not None for client_id in ids]
    assert known == [False] * 6 + [True] * 2
    for client in used:
        assert (await client.refresh()).status_code == 200
    decided = await browser.open("/oauth/authorize", **Installation(here, client_id=ids[-1]).query())
    here.clock.advance(3590)
    late = Installation(here, client_id=ids[-1])
    assert decided.status_code == 200
    assert (await late.code(browser)) != ""  # its user was about to decide, and could take their time
    assert await here.auth.kept.get("client", ids[-2]) is None
    for _ in range(3):
        here.clock.advance(60 * 86_400)
        for client in used:
            assert (await client.call(grant_type="refresh_token", refresh_token="x")).json()["error"] == "invalid_grant"
            # A new sign-in on the same registration.
            await client.connect(await here.signed_in())
    here.clock.advance(91 * 86_400)
    assert (await used[0].call(grant_type="refresh_token", refresh_token="x")).json()["error"] == "invalid_client"
