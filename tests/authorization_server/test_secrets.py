"""What a copy of the database and a reader of the logs see of a client's whole way: nothing to use."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import logging
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

import bson
import pytest
from pymongo import MongoClient

from tests.authorization_server.kit import Installation, World, answer_of, form_of, world
from tests.parts.process import free_port
from tests.stores.backends import MOTOR, PYMONGO, MongoBackend, now_clock
from tornado_sse_auth import Keyring

OURS = ("tornado", "asyncio")  # the client's own log lines quote what it sends


async def test_neither_database_nor_logs_hold_a_secret(
    mongod: Any, database_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """SEC-01, SEC-56, SEC-58: no code, token, verifier, state, client secret, cookie or form value; successors are
    sealed under the tokens themselves, so not even our own keys open them."""
    caplog.set_level(logging.DEBUG)
    async with AsyncExitStack() as stack:
        backend = MongoBackend(clock=now_clock(), stack=stack, uri=mongod.uri, name=database_name, driver=MOTOR)
        here = await stack.enter_async_context(world(await backend.open(), clock=backend.clock))
        browser = await here.signed_in()
        client = Installation(here, state="state-canary-0123456789")
        await client.register(token_endpoint_auth_method="client_secret_post")
        page = await browser.open("/oauth/authorize", **client.query())
        waiting = await browser.open("/oauth/authorize", **client.query())
        code = answer_of(await browser.press(page))["code"]
        client.tokens = (await client.exchange(code)).json()
        secrets = [code, client.verifier, client.state, client.client_secret or "", *form_of(page.text).values()]
        secrets += [value or "" for _, value in browser.http.cookies.items()]
        for _ in range(3):
            secrets += [client.tokens["access_token"], client.tokens["refresh_token"]]
            secrets += [client.tokens["refresh_token"][:43], client.tokens["refresh_token"][43:]]
            assert (await client.get()).status_code == 200
            assert (await client.refresh()).status_code == 200
        content = await asyncio.to_thread(dump, mongod.uri, database_name)
        # What was refused is not written down, either.
        await client.refresh("refused-canary-" * 6)
        await client.exchange(code)
        await client.get(token="refused-canary-0123456789")
        secrets += ["refused-canary", *form_of(waiting.text).values()]
        content += await asyncio.to_thread(dump, mongod.uri, database_name)
    log = "\n".join(
        f"{record.getMessage()} {record.args!r}" for record in caplog.records if record.name.startswith(OURS)
    )
    assert "/oauth/token" in log
    assert client.client_id.encode() in content
    assert len(secrets) == len([secret for secret in secrets if len(secret) > 10])
    for token in (client.tokens["access_token"], client.tokens["refresh_token"]):
        assert hashlib.sha256(token.encode()).digest() in content
    for secret in secrets:
        assert secret not in log
        plain = secret.encode()
        encoded = [base64.b64encode(b"\0" * pad + plain)[4:-4] for pad in range(3)]
        for form in (plain, plain.hex().encode(), *encoded):
            assert form not in content, secret


async def test_a_key_that_is_gone_stops_nobody(mongod: Any, database_name: str) -> None:
    """SEC-59: what it sealed of the authorization server: no 500, and nobody waits for ever. Access tokens, of which
    there are only hashes, are good; clients are unknown, register anew and ask their users again."""
    port, clock = free_port(), now_clock()
    async with AsyncExitStack() as stack:

        async def process(keyring: Keyring) -> World:
            """One that starts with these keys after the last has ended."""
            backend = MongoBackend(
                clock=clock, stack=stack, uri=mongod.uri, name=database_name, driver=PYMONGO, keyring=keyring
            )
            return await stack.enter_async_context(world(await backend.open(), clock=clock, port=port))

        before = await process(Keyring.generate())
        alice = await before.signed_in()
        cookie = alice.http.cookies
        public = await before.installation(alice)
        private = Installation(before)
        await private.register(token_endpoint_auth_method="client_secret_post")
        await private.connect(alice)
        page = await alice.open("/oauth/authorize", **public.query())
        code = await public.code(alice)
    async with AsyncExitStack() as stack, asyncio.timeout(30):
        after = await process(Keyring.generate())
        alice = after.browser()
        alice.http.cookies = cookie
        public, private = replace(public, world=after), replace(private, world=after)
        for client in (public, private):
            assert (await client.get()).status_code == 200
            for refused in (await client.refresh(), await client.exchange(code)):
                assert (refused.status_code, refused.json()["error"]) == (401, "invalid_client")
        for waiting in (await alice.press(page), await alice.open("/oauth/authorize", **public.query())):
            assert (waiting.status_code, waiting.headers.get("Location")) == (400, None)
        known = [(await client.register())["client_id"] for client in (public, public)]
        assert known[0] == known[1]
        await public.connect(alice)
        assert (await public.refresh()).status_code == 200


def dump(uri: str, name: str) -> bytes:
    with MongoClient[dict[str, Any]](uri) as mongo:
        found = [document for one in mongo[name].list_collection_names() for document in mongo[name][one].find()]
    return b"".join(bson.encode(document) for document in found)
