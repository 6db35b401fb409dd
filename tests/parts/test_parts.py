"""Each part answers when it has started, and obeys."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import secrets
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import KeySet
from pymongo import AsyncMongoClient, MongoClient, timeout
from pymongo.errors import PyMongoError
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

from tests.parts import mongod as mongo
from tests.parts import provider as oidc
from tests.parts.browser import Browser
from tests.parts.require import require
from tests.parts.scripted_answers import Delivery
from tests.parts.scripted_provider import Answer, ScriptedProvider
from tests.parts.sse_client import ServerSentEvent, SSEClient
from tests.parts.statsd import Sample, StatsDListener
from tests.parts.tcp_proxy import TCPProxy


async def test_mongod_is_a_replica_set_with_change_streams(
    mongod: mongo.ReplicaSet | mongo.ExternalMongo, database_name: str
) -> None:
    async with AsyncMongoClient[dict[str, object]](mongod.uri) as client:
        collection = client[database_name].things
        async with await collection.watch() as changes:
            await collection.insert_one({"_id": 1})
            change = await asyncio.wait_for(changes.next(), 5)
    assert change["operationType"] == "insert"


def test_mongod_freezes_dies_and_comes_back_with_its_data(own_mongod: mongo.ReplicaSet) -> None:
    server = own_mongod.members[0]
    with MongoClient[dict[str, object]](own_mongod.uri) as client:
        things = client.test.things
        things.insert_one({"_id": 1})
        with server.stopped(), pytest.raises(PyMongoError), timeout(0.5):
            things.find_one({"_id": 1})
        assert things.find_one({"_id": 1}) == {"_id": 1}
        server.kill()
        server.start()
        assert own_mongod.primary() is server
        assert things.find_one({"_id": 1}) == {"_id": 1}


def test_a_standalone_mongod_is_no_replica_set(standalone_mongod: mongo.Mongod) -> None:
    assert "setName" not in standalone_mongod.run("hello")


def test_three_members_elect_another_primary(replica_set_of_three: mongo.ReplicaSet) -> None:
    first = replica_set_of_three.primary()
    first.kill()
    assert replica_set_of_three.primary() is not first


class RelyingParty:
    """The least of an application that signs its users in: /auth/login and /auth/callback on a port of its own."""

    def __init__(self, issuer: str, client_id: str, client_secret: str) -> None:
        self.issuer = issuer
        self.auth = (client_id, client_secret)
        self.verifier = secrets.token_urlsafe(48)
        self.nonce = secrets.token_urlsafe(16)
        self.tokens: dict[str, Any] = {}
        self.server = HTTPServer(Application([("/auth/login", _Login), ("/auth/callback", _Callback)], party=self))
        sockets = bind_sockets(0, "127.0.0.1")
        self.server.add_sockets(sockets)
        self.origin = f"http://127.0.0.1:{sockets[0].getsockname()[1]}"
        self.redirect_uri = f"{self.origin}/auth/callback"

    async def metadata(self) -> dict[str, Any]:
        async with httpx.AsyncClient() as client:
            answer = await client.get(f"{self.issuer}/.well-known/openid-configuration")
            return dict(answer.json())

    async def token(self, **form: str) -> httpx.Response:
        async with httpx.AsyncClient(auth=self.auth) as client:
            return await client.post((await self.metadata())["token_endpoint"], data=form)

    async def refresh(self, refresh_token: str) -> httpx.Response:
        return await self.token(grant_type="refresh_token", refresh_token=refresh_token)


class _Login(RequestHandler):
    async def get(self) -> None:
        party: RelyingParty = self.settings["party"]
        challenge = base64.urlsafe_b64encode(hashlib.sha256(party.verifier.encode()).digest()).rstrip(b"=").decode()
        query = {
            "response_type": "code",
            "client_id": party.auth[0],
            "redirect_uri": party.redirect_uri,
            "scope": "openid offline_access profile content:read",
            "code_challenge": challenge,
            "code_challenge_method": "S256",
            "nonce": party.nonce,
            "state": "s",
            "prompt": "consent",
            "login_hint": self.get_argument("login_hint"),
        }
        self.redirect((await party.metadata())["authorization_endpoint"] + "?" + urlencode(query))


class _Callback(RequestHandler):
    async def get(self) -> None:
        party: RelyingParty = self.settings["party"]
        code = self.get_argument("code")
        answer = await party.token(
            grant_type="authorization_code", code=code, redirect_uri=party.redirect_uri, code_verifier=party.verifier
        )
        party.tokens = answer.json()
        self.set_cookie("who", "me")
        self.redirect("/")


async def test_provider_signs_in_rotates_and_judges(provider: oidc.Provider) -> None:
    party = RelyingParty(provider.issuer, provider.client_id, provider.client_secret)
    await provider.add_redirect_uri(party.redirect_uri)
    await provider.change_account("bob-parts", claims={"name": "Bob", "permissions": ["trade"]}, access_ttl=7)
    done = await oidc.sign_in(f"{party.origin}/auth/login", account="bob-parts")
    assert (done.response.status_code, done.response.headers["location"]) == (302, "/")
    assert done.cookies["who"] == "me"
    assert party.tokens["expires_in"] == 7
    first = party.tokens["refresh_token"]

    await provider.change_account("bob-parts", scope="openid offline_access profile")
    second = (await party.refresh(first)).json()
    assert second["refresh_token"] != first
    assert "content:read" not in second["scope"].split()
    async with httpx.AsyncClient() as client:
        bearer = {"Authorization": f"Bearer {second['access_token']}"}
        userinfo = (await client.get((await party.metadata())["userinfo_endpoint"], headers=bearer)).json()
    assert userinfo == {"sub": "bob-parts", "name": "Bob", "permissions": ["trade"]}

    assert (await party.refresh(first)).json()["error"] == "invalid_grant"
    assert (await party.refresh(second["refresh_token"])).json()["error"] == "invalid_grant"
    stats = await provider.stats()
    assert stats.refreshes["bob-parts"] == 1
    assert stats.errors["invalid_grant"] >= 2
    party.server.stop()


async def test_provider_ends_all_grants_of_an_account(provider: oidc.Provider) -> None:
    party = RelyingParty(provider.issuer, provider.client_id, provider.client_secret)
    await provider.add_redirect_uri(party.redirect_uri)
    await oidc.sign_in(f"{party.origin}/auth/login", account="carol-parts")
    assert await provider.revoke_account("carol-parts") == 1
    assert (await party.refresh(party.tokens["refresh_token"])).json()["error"] == "invalid_grant"
    party.server.stop()


async def test_scripted_provider_signs_in_counts_and_revokes(scripted_provider: ScriptedProvider) -> None:
    server = scripted_provider
    party = RelyingParty(server.issuer, server.client_id, server.client_secret)
    await oidc.sign_in(f"{party.origin}/auth/login", account="dave")
    keys = KeySet.import_key_set({"keys": [key.as_dict(private=False) for key in server.keys]})
    claims = jwt.decode(party.tokens["id_token"], keys).claims
    assert (claims["sub"], claims["nonce"], claims["iss"]) == ("dave", party.nonce, server.issuer)

    first = party.tokens["refresh_token"]
    server.script("token", Answer(status=503, headers={"Retry-After": "7"}), Answer(change={"expires_in": None}))
    refused = await party.refresh(first)
    assert (refused.status_code, refused.headers["Retry-After"], server.uses[first]) == (503, "7", 0)
    second = (await party.refresh(first)).json()
    assert "expires_in" not in second
    assert (await party.refresh(first)).json() == {"error": "invalid_grant"}
    assert (await party.refresh(second["refresh_token"])).json() == {"error": "invalid_grant"}
    assert (server.uses[first], server.revoked_families) == (2, 1)
    assert len(await server.wait_for_calls("token", 4, grant_type="refresh_token")) == 4
    party.server.stop()


@pytest.mark.parametrize("delivery", ["cut", "cut_midway", "hang", "drip", "endless", "gzip"])
async def test_scripted_provider_answers_badly(scripted_provider: ScriptedProvider, delivery: Delivery) -> None:
    token = scripted_provider.issue("erin")["refresh_token"]
    scripted_provider.script("token", Answer(delivery=delivery))
    party = RelyingParty(scripted_provider.issuer, scripted_provider.client_id, scripted_provider.client_secret)
    try:
        answer = await asyncio.wait_for(party.refresh(token), 0.5)
    except (httpx.TransportError, TimeoutError):
        assert delivery != "gzip"
    else:
        assert (delivery, answer.json()["token_type"]) == ("gzip", "Bearer")
    assert scripted_provider.uses[token] == 1
    party.server.stop()


class _BackchannelLogout(RequestHandler):
    def post(self) -> None:
        self.settings["received"].set_result(self.get_body_argument("logout_token"))


async def test_provider_tells_the_application_of_a_logout() -> None:
    require(oidc.check_available)
    received: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    server = HTTPServer(Application([("/out", _BackchannelLogout)], received=received))
    sockets = bind_sockets(0, "127.0.0.1")
    server.add_sockets(sockets)
    uri = f"http://127.0.0.1:{sockets[0].getsockname()[1]}/out"
    with oidc.running(backchannel_logout_uri=uri) as provider:
        party = RelyingParty(provider.issuer, provider.client_id, provider.client_secret)
        await provider.add_redirect_uri(party.redirect_uri)
        await oidc.sign_in(f"{party.origin}/auth/login", account="frank")
        assert await provider.logout_account("frank") == 1
        token = await asyncio.wait_for(received, 5)
    assert token.count(".") == 2
    party.server.stop()
    server.stop()


@pytest.mark.parametrize(("ci", "status"), [("", 0), ("1", 1)])
def test_a_real_part_that_was_skipped_fails_in_ci_only(tmp_path: Path, ci: str, status: int) -> None:
    (tmp_path / "conftest.py").write_text(
        "from tests.parts.require import RealPartsReport\n"
        "def pytest_configure(config): config.pluginmanager.register(RealPartsReport({'part': 'teapot'}))\n"
    )
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = real(part)\nasyncio_mode = auto\n")
    (tmp_path / "test_it.py").write_text(
        "import pytest\n"
        "@pytest.fixture\n"
        "def part(): pytest.skip('no teapot')\n"
        "def test_tea(part): pass\n"
        "def test_water(): pass\n"
    )
    environment = {**os.environ, "CI": ci, "PYTHONPATH": str(Path(__file__).parents[2])}
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(tmp_path)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == status, run.stdout + run.stderr
    assert "teapot: test_it.py::test_tea" in run.stdout


class _Stream(RequestHandler):
    async def get(self) -> None:
        self.set_header("Content-Type", "text/event-stream")
        self.write(":hi\r\nretry: 1500\r\n\r\nid: 7\revent: tick\rdata: a\rdata:b\r\r")
        await self.flush()
        beat: asyncio.Event = self.settings["beat"]
        await beat.wait()
        self.write("data: {}\n\n")


async def test_sse_client_behind_a_proxy_that_fails() -> None:
    beat = asyncio.Event()
    server = HTTPServer(Application([("/", _Stream)], beat=beat))
    sockets = bind_sockets(0, "127.0.0.1")
    server.add_sockets(sockets)
    async with TCPProxy(sockets[0].getsockname()[1]) as proxy:
        url = f"http://127.0.0.1:{proxy.port}/"
        async with SSEClient(url) as cut, SSEClient(url) as starved:
            assert await cut.next("tick") == ServerSentEvent("tick", "a\nb", "7")
            assert (cut.comments, cut.retry, cut.last_event_id) == (["hi"], 1500, "7")
            await starved.next("tick")
            with proxy.blackhole():
                beat.set()
                with pytest.raises(AssertionError, match="no event"):
                    await starved.next(timeout=0.3)
                assert not starved.ended
            proxy.cut()
            await cut.wait_for_end()
        with proxy.delay(0.05):
            async with SSEClient(url) as late:
                assert (await late.next("message")).json() == {}
        async with proxy.refuse():
            with pytest.raises(httpx.ConnectError):
                await SSEClient(url).__aenter__()
        async with SSEClient(url) as again:
            assert again.status == 200
    server.stop()
    await server.close_all_connections()


async def test_statsd_listener_keeps_what_it_is_sent(statsd: StatsDListener) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"p.hit:1|c\np.time:2.5|ms", (statsd.host, statsd.port))
        sender.sendto(b"p.open:+3|g", (statsd.host, statsd.port))
    assert await statsd.wait_for("p.open") == [Sample("p.open", 3.0, "g", relative=True)]
    assert statsd.samples("p.time") == [Sample("p.time", 2.5, "ms")]


async def test_browser_runs_a_script_and_takes_a_picture(browser: Browser, tmp_path: Path) -> None:
    picture = tmp_path / "page.png"
    seen = await browser.run(
        """
        await page.setContent('<title>hello</title><script>console.log("from the page")</script>');
        await page.screenshot({path: params.picture});
        return {title: await page.title()};
        """,
        picture=picture,
    )
    assert seen == {"title": "hello", "console": ["[log] from the page"]}
    assert picture.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(AssertionError, match="no such luck"):
        await browser.run("throw new Error('no such luck')")
