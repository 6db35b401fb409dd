"""Each part answers when it has started, and obeys."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import secrets
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
from pymongo import AsyncMongoClient, MongoClient, timeout
from pymongo.errors import PyMongoError
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

from tests.parts import mongod as mongo
from tests.parts import provider as oidc


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
