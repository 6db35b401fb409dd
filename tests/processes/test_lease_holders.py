"""The holder of a lease is killed, hangs, or loses the store: what becomes of the refresh token it was spending."""

from __future__ import annotations

import asyncio
import json
import secrets
from contextlib import AsyncExitStack
from urllib.parse import urlsplit

from tests.parts.mongod import ExternalMongo, ReplicaSet
from tests.parts.sample_server import SampleServer, User, sample_servers, signed_in
from tests.parts.scripted_provider import Answer, ScriptedProvider
from tests.parts.sse_client import SSEClient
from tests.parts.tcp_proxy import TCPProxy
from tests.processes.session_history import SessionHistory
from tornado_sse_auth.sessions.lease import LEASE_LENGTH

FIRST_LIFE = 6
LATER_LIFE = 3600
JUDGED = 6 * LEASE_LENGTH  # two lease lengths, on a machine that has other things to do
MILLISECONDS = 1000


async def test_holders_that_die_hang_or_lose_the_store(
    own_mongod: ReplicaSet | ExternalMongo, scripted_provider: ScriptedProvider
) -> None:
    """REL-03, REL-04, REL-05: the store is asked, not the clock of a process; a token is presented once more and only
    once, and only when its holder has not come back for a whole lease; what comes late is kept if nothing newer is
    there."""
    provider = scripted_provider
    provider.expires_in = FIRST_LIFE
    database = f"test_{secrets.token_hex(6)}"
    async with AsyncExitStack() as stack:
        proxy = await stack.enter_async_context(TCPProxy(own_mongod.members[0].port))
        through = f"mongodb://127.0.0.1:{proxy.port}/?directConnection=true"
        uris = [own_mongod.uri, own_mongod.uri, through, own_mongod.uri]
        killed, hung, cut_off, witness = servers = await stack.enter_async_context(
            sample_servers(provider, uris, database, drivers=("pymongo", "motor", "motor", "pymongo"))
        )
        history = await stack.enter_async_context(SessionHistory(own_mongod.uri, database))

        holders = {"unspent": killed, "spent": killed, "alone": hung, "raced": hung, "storeless": cut_off}
        gates = {account: asyncio.Event() for account in holders}
        late = provider.issue("raced", "openid offline_access profile content:read events:write")
        answers = {
            "unspent": Answer(spends=False, gate=gates["unspent"]),
            "raced": Answer(spends=False, gate=gates["raced"], body=json.dumps(late)),
        }
        users: dict[str, User] = {}
        streams: dict[str, SSEClient] = {}
        for account, server in holders.items():
            answer = answers.get(account, Answer(gate=gates[account], change={"expires_in": LATER_LIFE}))
            provider.script_refresh(account, answer)
            users[account] = await signed_in(server, account)
            streams[account] = await stack.enter_async_context(users[account].stream(server))
        await provider.wait_for_calls("token", len(holders), timeout=60, grant_type="refresh_token")
        provider.expires_in = LATER_LIFE  # nothing else falls due

        await asyncio.to_thread(killed.kill)
        with hung.stopped():
            watched = {}
            for account in ("unspent", "spent", "raced", "storeless"):
                watched[account] = await stack.enter_async_context(users[account].stream(witness))

            # The store goes away under a process whose answer is on its way.
            with proxy.blackhole():
                gates["storeless"].set()
                await asyncio.to_thread(cut_off.wait_for_line, "outcome of a refresh is not stored yet", 30)
                assert not streams["storeless"].ended
            await stored(history, users["storeless"], 2)
            assert len(provider.refreshes("storeless")) == 1
            await renewed(watched["storeless"])

            # Two lease lengths later the survivor presents what the others left behind, once.
            await stored(history, users["unspent"], 2)
            await renewed(watched["unspent"])
            await stored(history, users["raced"], 2)
            required = (await watched["spent"].next("auth_required", timeout=JUDGED)).json()
            assert required["reason"] == "refresh_rejected"
            assert provider.revoked_families == 1
            assert history.rows[users["alone"].session_id].token_version == 1  # nobody else has a stream of it
        assert_watched_for_a_whole_lease(history, users)

        # The hung one goes on: its clock stood still, the store's did not.
        gates["alone"].set()
        gates["raced"].set()
        await stored(history, users["alone"], 2)
        await renewed(streams["alone"])
        async with users["raced"].client(hung) as client:
            assert (await client.get("/me")).status_code == 200
        assert history.rows[users["raced"].session_id].token_version == 2
        assert len(provider.refreshes("alone")) == 1
        assert len(provider.refreshes("raced")) == 2

        # A crash between the provider's answer and the write costs a sign-in, and no more than that.
        again = urlsplit(required["authorization_url"])
        back = await signed_in(witness, "spent", start=f"{witness.url}{again.path}?{again.query}")
        assert back.session_id == users["spent"].session_id
        assert (await watched["spent"].next("auth_restored")).json()["session_id"] == back.session_id
        assert not watched["spent"].ended
        assert history.violations == []
        assert dict(history.lost) == {"refresh_rejected": 1}
        assert reattempts(servers) == 3
        assert set(history.reattempts) == {users[name].session_id for name in ("unspent", "spent", "raced")}
        for name, number in {"unspent": 2, "spent": 2, "raced": 2, "alone": 1, "storeless": 1}.items():
            assert len(provider.refreshes(name)) == number, name


async def stored(history: SessionHistory, user: User, version: int) -> None:
    await history.until(lambda seen: seen.rows[user.session_id].token_version == version, timeout=JUDGED)


async def renewed(stream: SSEClient) -> None:
    """The stream's own token is the new one."""
    while (await stream.next("tick")).json()["token_expires_in"] < 10 * FIRST_LIFE:
        pass


def assert_watched_for_a_whole_lease(history: SessionHistory, users: dict[str, User]) -> None:
    for account in ("unspent", "spent", "raced"):
        first, second = [at for name, _, at in history.leases if name == users[account].session_id]
        assert second - first >= 2 * LEASE_LENGTH * MILLISECONDS


def reattempts(servers: list[SampleServer]) -> int:
    return sum(line["outcome"] == "reattempt" for server in servers for line in server.audit())
