"""Each part answers when it has started, and obeys."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import KeySet
from pymongo import AsyncMongoClient, MongoClient, timeout
from pymongo.errors import PyMongoError
from tornado.web import Application, RequestHandler

from tests.parts import mongod as mongo
from tests.parts import provider as oidc
from tests.parts.browser import Browser
from tests.parts.relying_party import RelyingParty
from tests.parts.require import require
from tests.parts.scripted_answers import Delivery
from tests.parts.scripted_provider import Answer, ScriptedProvider
from tests.parts.sse_client import ServerSentEvent, SSEClient
from tests.parts.statsd import Sample, StatsDListener
from tests.parts.tcp_proxy import TCPProxy
from tests.parts.web_server import listening
from tests.streams.serving import until


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


async def test_provider_signs_in_rotates_and_judges(provider: oidc.Provider) -> None:
    async with RelyingParty(provider) as party:
        await provider.add_redirect_uri(party.redirect_uri)
        await provider.change_account("bob-parts", claims={"name": "Bob", "permissions": ["trade"]}, access_ttl=7)
        done = await party.sign_in("bob-parts")
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


async def test_provider_ends_all_grants_of_an_account(provider: oidc.Provider) -> None:
    async with RelyingParty(provider) as party:
        await provider.add_redirect_uri(party.redirect_uri)
        await party.sign_in("carol-parts")
        assert await provider.revoke_account("carol-parts") == 1
        assert (await party.refresh(party.tokens["refresh_token"])).json()["error"] == "invalid_grant"


async def test_scripted_provider_signs_in_counts_and_revokes(scripted_provider: ScriptedProvider) -> None:
    server = scripted_provider
    async with RelyingParty(server) as party:
        await party.sign_in("dave")
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


@pytest.mark.parametrize("delivery", ["cut", "cut_midway", "hang", "drip", "endless", "gzip"])
async def test_scripted_provider_answers_badly(scripted_provider: ScriptedProvider, delivery: Delivery) -> None:
    token = scripted_provider.issue("erin")["refresh_token"]
    scripted_provider.script("token", Answer(delivery=delivery))
    async with RelyingParty(scripted_provider) as party:
        refreshing = asyncio.create_task(party.refresh(token))
        await until(lambda: scripted_provider.uses[token] == 1)
        try:
            answer = await asyncio.wait_for(refreshing, 20 if delivery == "gzip" else 0.5)
        except (httpx.TransportError, TimeoutError):
            assert delivery != "gzip"
        else:
            assert (delivery, answer.json()["token_type"]) == ("gzip", "Bearer")
        assert scripted_provider.uses[token] == 1


class _BackchannelLogout(RequestHandler):
    def post(self) -> None:
        self.settings["received"].set_result(self.get_body_argument("logout_token"))


async def test_provider_tells_the_application_of_a_logout() -> None:
    require(oidc.check_available)
    received: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    async with listening(Application([("/out", _BackchannelLogout)], received=received)) as origin:
        with oidc.running(backchannel_logout_uri=f"{origin}/out") as provider:
            async with RelyingParty(provider) as party:
                await provider.add_redirect_uri(party.redirect_uri)
                await party.sign_in("frank")
                assert await provider.logout_account("frank") == 1
    assert received.result().count(".") == 2


@pytest.mark.parametrize("options", [(), ("--numprocesses=1",)], ids=["alone", "several"])
@pytest.mark.parametrize(("ci", "status"), [("", 0), ("1", 1)])
def test_a_real_part_that_was_skipped_fails_in_ci_only(
    tmp_path: Path, ci: str, status: int, options: tuple[str, ...]
) -> None:
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
    environment.pop("PYTEST_ADDOPTS", None)
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options, str(tmp_path)],
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
    async with (
        listening(Application([("/", _Stream)], beat=beat)) as origin,
        TCPProxy(int(origin.rpartition(":")[2])) as proxy,
    ):
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
