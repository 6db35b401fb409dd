"""A new encryption key over two processes: in which steps, in either order, and what a key that is gone costs."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import pairwise
from typing import Any

import pytest
from motor.motor_asyncio import AsyncIOMotorClient

from tests.parts import provider as oidc
from tests.parts.mongod import ExternalMongo, ReplicaSet
from tests.parts.scripted_provider import ScriptedProvider
from tests.scenarios.server import Running, serve
from tornado_sse_auth import Keyring, MongoSessionStore, OAuthProvider, Secret

OLD, NEW = os.urandom(32), os.urandom(32)
# First every process learns to open with the new key, then each begins to seal with it; the old one goes last.
STEPS = ([OLD], [OLD, NEW], [NEW, OLD], [NEW])


@asynccontextmanager
async def process(
    scripted: ScriptedProvider, mongod: ReplicaSet | ExternalMongo, name: str, keys: list[bytes]
) -> AsyncIterator[Running]:
    """One process's worth of the framework with this ring."""
    motor: Any = AsyncIOMotorClient(mongod.uri)
    upstream = OAuthProvider(issuer=scripted.issuer, client_id="app", client_secret=scripted.client_secret)
    try:
        async with serve(MongoSessionStore(motor[name], Keyring(keys)), upstream) as app:
            yield app
    finally:
        motor.close()


async def new_bearer(app: Running, account: str) -> Secret:
    """Somebody signs in, and makes a bearer, which both processes take."""
    done = await oidc.sign_in(f"{app.url}/auth/login", account=account)
    cookie = {"Cookie": f"{app.cookie}={done.cookies[app.cookie]}", "Origin": app.url}
    async with app.client(verify=False, headers=cookie) as client:
        return Secret((await client.post("/auth/token", json={"grant": "session"})).json()["access_token"])


async def upstream(app: Running, bearer: Secret) -> Any:
    async with app.client(verify=False, headers={"Authorization": f"Bearer {bearer.reveal()}"}) as client:
        return await client.get("/upstream")


def audit_lines(caplog: pytest.LogCaptureFixture, event: str) -> list[dict[str, Any]]:
    lines = [json.loads(record.message) for record in caplog.records if record.name == "tornado_sse_auth.audit"]
    return [line for line in lines if line["event"] == event]


@pytest.mark.parametrize("first", [0, 1], ids=["one first", "the other first"])
async def test_a_rotation_in_steps_signs_nobody_out(
    scripted_provider: ScriptedProvider,
    mongod: ReplicaSet | ExternalMongo,
    database_name: str,
    caplog: pytest.LogCaptureFixture,
    first: int,
) -> None:
    """SEC-59: at every moment of it each process opens what either has written: token sets, refreshed here or there,
    and the records of sign-ins."""
    caplog.set_level(logging.INFO, logger="tornado_sse_auth.audit")
    states = [(STEPS[0], STEPS[0])]
    for before, after in pairwise(STEPS):
        states += [(after, before) if first == 0 else (before, after), (after, after)]
    bearers: list[Secret] = []
    for rings in states:
        async with AsyncExitStack() as stack:
            processes = [
                await stack.enter_async_context(process(scripted_provider, mongod, database_name, ring))
                for ring in rings
            ]
            for app, other in (processes, processes[::-1]):
                bearers.append(await new_bearer(app, f"user{len(bearers)}"))
                for bearer in {*bearers[:2], *bearers[-3:]}:
                    for one in (app, other):
                        assert (await upstream(one, bearer)).status_code == 200
                digest = os.urandom(32)
                await app.auth.records.put("sign-in", digest, {"n": 1}, app.auth.clock.time() + 60)
                assert await other.auth.records.take("sign-in", digest) == {"n": 1}
                # A refresh here is understood there; the session that is oldest is never refreshed.
                session = (await app.auth.sessions.sessions_of(f"{scripted_provider.issuer}|user{len(bearers) - 1}"))[0]
                assert app.auth.refresher is not None
                renewed = await app.auth.refresher.attempt(session.id, session.token_version)
                assert renewed.token_set is not None
                assert await other.auth.store.find(session.id) == renewed
            if rings == ([NEW, OLD], [NEW, OLD]):
                store = processes[0].auth.store
                assert isinstance(store, MongoSessionStore)
                assert (await store.sealing_keys()).outdated > 0
                async for _ in store.sealed.reseal():
                    pass
                assert (await store.sealing_keys()).dispensable == (Keyring([OLD]).sealing_key_id.hex(),)
    assert len(bearers) == 2 * len(states)
    outcomes = {line["outcome"] for event in ("refresh", "denial") for line in audit_lines(caplog, event)}
    assert outcomes == {"success"}


async def test_a_key_that_is_gone_costs_its_sessions_one_sign_in(
    scripted_provider: ScriptedProvider,
    mongod: ReplicaSet | ExternalMongo,
    database_name: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """SEC-55, SEC-59: 401 with an authorization URL and one line in the audit log, never 500; after a sign-in the same
    session goes on with its bearer. Others notice nothing."""
    caplog.set_level(logging.INFO, logger="tornado_sse_auth.audit")
    async with process(scripted_provider, mongod, database_name, [OLD]) as app:
        bearer = await new_bearer(app, "stranded")
    async with process(scripted_provider, mongod, database_name, [NEW]) as app:
        other = await new_bearer(app, "other")
        for _ in range(3):
            refused = await upstream(app, bearer)
            assert (refused.status_code, refused.json()["error"]) == (401, "authorization_required")
        assert (await upstream(app, other)).status_code == 200
        lines = [line for line in audit_lines(caplog, "refresh") if line["outcome"] == "reauthorization"]
        assert [(line["user_id"], line["reason"]) for line in lines] == [
            (f"{scripted_provider.issuer}|stranded", "unreadable")
        ]
        url = refused.json()["authorization_url"]
        await oidc.sign_in(url, account="stranded")
        assert (await upstream(app, bearer)).status_code == 200
        assert (await upstream(app, other)).status_code == 200
