"""What a copy of the database and a reader of the logs see of a client's whole way: nothing to use."""

from __future__ import annotations

import asyncio
import base64
import logging
from contextlib import AsyncExitStack
from typing import Any

import bson
import pytest
from pymongo import MongoClient

from tests.authorization_server.kit import Installation, answer_of, form_of, world
from tests.stores.backends import MOTOR, MongoBackend, now_clock

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
    for secret in secrets:
        assert secret not in log
        plain = secret.encode()
        encoded = [base64.b64encode(b"\0" * pad + plain)[4:-4] for pad in range(3)]
        for form in (plain, plain.hex().encode(), *encoded):
            assert form not in content, secret


def dump(uri: str, name: str) -> bytes:
    with MongoClient[dict[str, Any]](uri) as mongo:
        found = [document for one in mongo[name].list_collection_names() for document in mongo[name][one].find()]
    return b"".join(bson.encode(document) for document in found)
