"""Grants beside their session: listed, ended one by one, and what ends them all; their streams with them."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from tests.authorization_server.kit import Browser, Installation, World, world
from tests.parts.sse_client import SSEClient
from tornado_sse_auth import MemorySessionStore
from tornado_sse_auth.sessions import grant_changes
from tornado_sse_auth.stores import mongo
from tornado_sse_auth.testing import ManualClock


async def listed(browser: Browser) -> list[dict[str, object]]:
    """The user's sessions."""
    answer = await browser.http.get("/auth/sessions")
    assert answer.status_code == 200
    sessions: list[dict[str, object]] = answer.json()["sessions"]
    return sessions


async def open_stream(stack: AsyncExitStack, client: Installation) -> SSEClient:
    stream = await stack.enter_async_context(client.world.app.stream("/stream", bearer=client.tokens["access_token"]))
    await stream.next("open")
    return stream


async def test_grants_are_listed_and_ended_one_by_one(processes: tuple[World, World]) -> None:
    """SEC-50: in every process, its streams with it; other grants of the same client live on; nobody else's."""
    first, second = processes
    alice = await first.signed_in()
    mallory = await second.signed_in("https://issuer|mallory")
    one, two = await first.installation(alice), await first.installation(alice, scope="content:read")
    (session,) = await listed(alice)
    assert session["id"] == alice.session_id
    grants = session["grants"]
    assert isinstance(grants, list)
    assert [grant["id"] for grant in grants] == [await one.grant_id(), await two.grant_id()]
    assert set(grants[0]) == {"id", "client_id", "name", "redirect_uri", "resources", "scopes", "created", "last_used"}
    assert (grants[1]["name"], grants[1]["scopes"], grants[1]["client_id"]) == (
        "Editor",
        ["content:read"],
        one.client_id,
    )
    assert one.client_id == two.client_id
    path = f"/auth/sessions/{alice.session_id}/grants/{grants[0]['id']}"
    there = Installation(second, tokens=one.tokens)
    async with AsyncExitStack() as stack:
        ending = [await open_stream(stack, client) for client in (one, there)]
        lasting = await open_stream(stack, Installation(second, tokens=two.tokens))
        origin = {"Origin": first.url}
        for browser in (mallory, Installation(first, tokens=two.tokens)):
            if isinstance(browser, Browser):
                assert (await browser.http.delete(path, headers=origin)).status_code == 404
            else:
                bearer = {"Authorization": f"Bearer {browser.tokens['access_token']}"}
                assert (await first.http.delete(path, headers=bearer)).status_code == 401
        assert (await alice.http.delete(path, headers={"Origin": "https://evil.example"})).status_code == 403
        assert (
            await alice.http.delete(path[:-1] + ("0" if path[-1] != "0" else "1"), headers=origin)
        ).status_code == 404
        assert (await alice.http.delete(path, headers=origin)).status_code == 204
        for stream in ending:
            assert (await stream.next("end")).json() == {"reason": "revoked"}
        assert (await one.get()).status_code == 401
        assert (await one.refresh()).json()["error"] == "invalid_grant"
        assert (await two.get()).status_code == 200
        assert not lasting.ended
        assert (await alice.http.delete(path, headers=origin)).status_code == 404


async def test_what_is_refused_is_no_use(clock: ManualClock) -> None:
    """SEC-15, SEC-16: a credential that opens nothing (a token at another resource, a cookie's value as a bearer and
    the other way about, a refresh token, whatever belongs to a session that needs its user) renews neither its
    session nor its grant; nor does it show that an answer has arrived."""
    async with world(MemorySessionStore(clock=clock), clock=clock, access_token_ttl=86_400) as here:
        alice = await here.signed_in()
        client = await here.installation(alice)
        await client.refresh()
        clock.advance(4 * 3600)
        before = await here.session(alice.session_id)
        access, refresh = client.tokens["access_token"], client.tokens["refresh_token"]
        cookie = str(alice.http.cookies.get(here.app.cookie))
        for path in ("/me", "/auth/sessions"):
            assert (await client.get(path)).status_code == 401
        for path in ("/mcp", "/me"):
            assert (await client.get(path, token=cookie)).status_code == 401
            assert (await client.get(path, token=refresh)).status_code == 401
            planted = {"Cookie": f"{here.app.cookie}={access}"}
            assert (await here.http.get(path, headers=planted)).status_code == 401
        assert await here.session(alice.session_id) == before
        assert (await client.get("/mcp")).status_code == 200
        used = await here.session(alice.session_id)
        assert (used.last_seen, used.grants[0].last_used) == (clock.time(), clock.time())
        assert [grant.answered for grant in (*before.grants, *used.grants)] == [False, True]
        assert await here.auth.store.require_reauthorization(used, spent_version=used.token_version) is not None
        clock.advance(4 * 3600)
        before = await here.session(alice.session_id)
        assert (await client.get("/mcp")).status_code == 401
        assert (await alice.http.get("/me", headers={"Accept": "*/*"})).status_code == 401
        after = await here.session(alice.session_id)
        assert (after.last_seen, after.idle_expires_at, after.grants) == (
            before.last_seen,
            before.idle_expires_at,
            before.grants,
        )


async def test_a_stream_outlives_its_access_token(here: World) -> None:
    """SEC-49: the grant carries it, over a hundred access tokens; the grant's end ends it."""
    alice = await here.signed_in()
    client = await here.installation(alice)
    async with AsyncExitStack() as stack:
        stream = await open_stream(stack, client)
        for _ in range(100):
            here.clock.advance(605)
            here.auth.registry.tick()
            assert (await client.refresh()).status_code == 200
        assert not stream.ended
        assert here.auth.registry.count(alice.session_id) == 1
        assert await here.auth.sessions.end_grant(alice.session_id, await client.grant_id(), reason="test")
        assert (await stream.next("end")).json() == {"reason": "revoked"}


async def test_scopes_of_a_stream_are_the_grants(here: World) -> None:
    """SEC-17, SEC-49: the session's do not count where the grant lacks them; what the session loses, both lose."""
    alice = await here.signed_in()
    reader = await here.installation(alice, scope="content:read")
    writer = await here.installation(alice)
    async with AsyncExitStack() as stack:
        for client, status in ((reader, 403), (writer, 200)):
            stream = await stack.enter_async_context(
                here.app.stream("/stream?scope=events:write", bearer=client.tokens["access_token"])
            )
            assert stream.status == status
        session = await here.session(alice.session_id)
        narrowed = await here.auth.store.save_refresh(session, spent_version=0, lost_scopes=frozenset({"events:write"}))
        assert narrowed is not None
        here.auth.sessions.watch.changed(narrowed)
        assert (await stream.next("end")).json() == {"reason": "insufficient_scope"}
        assert (await writer.get()).json()["scopes"] == ["content:read"]
        assert (await writer.refresh()).json()["scope"] == "content:read"


async def test_signing_out_of_a_page_leaves_the_assistant(here: World) -> None:
    """The session lives on without a cookie, until its last grant ends."""
    alice = await here.signed_in()
    one, two = await here.installation(alice), await here.installation(alice)
    async with AsyncExitStack() as stack:
        stream = await open_stream(stack, one)
        assert (await alice.http.post("/auth/logout", headers={"Origin": here.url})).status_code == 204
        assert (await alice.http.get("/me")).status_code == 401
        assert (await one.get()).status_code == 200
        assert (await two.refresh()).status_code == 200
        assert not stream.ended
        await two.call("/oauth/revoke", token=two.tokens["refresh_token"])
        assert (await one.get()).status_code == 200
        await one.call("/oauth/revoke", token=one.tokens["refresh_token"])
        assert (await stream.next("end")).json() == {"reason": "revoked"}
    assert await here.auth.sessions.find(alice.session_id) is None


@pytest.mark.parametrize("how", ["session", "everywhere", "revoke", "user"])
async def test_what_ends_all_of_a_sessions_grants(here: World, how: str) -> None:
    """SEC-50: sessions ended by their user, a sign-out everywhere, and both ways to revoke."""
    alice = await here.signed_in()
    client = await here.installation(alice)
    origin = {"Origin": here.url}
    async with AsyncExitStack() as stack:
        stream = await open_stream(stack, client)
        if how == "session":
            await alice.http.delete(f"/auth/sessions/{alice.session_id}", headers=origin)
        elif how == "everywhere":
            await alice.http.post("/auth/logout", json={"everywhere": True}, headers=origin)
        elif how == "revoke":
            await here.auth.sessions.revoke(alice.session_id)
        else:
            await here.auth.sessions.revoke_user("https://issuer|alice")
        assert (await stream.next("end")).json() == {"reason": "revoked"}
    assert (await client.get()).json()["error"] == "invalid_token"
    assert (await client.refresh()).json()["error"] == "invalid_grant"


async def test_a_client_is_revoked(processes: tuple[World, World], monkeypatch: pytest.MonkeyPatch) -> None:
    """SEC-50: all its grants, of all users, in every process; other clients' stay, and so do the sessions."""
    monkeypatch.setattr(mongo, "CLIENT_PAGE", 2)
    first, second = processes
    browsers = [await first.signed_in(f"https://issuer|user-{number}") for number in range(5)]
    bad = [await first.installation(browser) for browser in browsers for _ in range(2)]
    good = await first.installation(browsers[0], metadata={"client_name": "Another"})
    elsewhere = [Installation(second, tokens=client.tokens) for client in bad]
    async with AsyncExitStack() as stack:
        stream = await open_stream(stack, elsewhere[-1])
        for client in elsewhere:
            assert (await client.get()).status_code == 200  # cached there from here on
        assert await first.auth.sessions.revoke_client(bad[0].client_id) == len(bad)
        assert await first.auth.sessions.revoke_client(bad[0].client_id) == 0
        assert (await stream.next("end")).json() == {"reason": "revoked"}
        for client in elsewhere[-2:]:  # of the session whose end was heard there
            assert (await client.get()).json()["error"] == "invalid_token"
    for client in bad:
        assert (await client.refresh()).json()["error"] == "invalid_grant"
        assert (await client.get()).status_code == 401
    assert (await good.refresh()).status_code == 200
    for browser in browsers:
        assert (await browser.http.get("/me")).status_code == 200


async def test_a_session_has_so_many_grants(here: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the limit the one that was used longest ago goes."""
    monkeypatch.setattr(grant_changes, "GRANTS_PER_SESSION", 3)
    alice = await here.signed_in()
    clients = []
    for _ in range(3):
        here.clock.advance(1)
        clients.append(await here.installation(alice))
    here.clock.advance(1)
    assert (await clients[0].refresh()).status_code == 200
    await here.installation(alice)
    assert [(await client.get()).status_code for client in clients] == [200, 401, 200]


async def test_parallel_first_uses(processes: tuple[World, World]) -> None:
    """After a refresh all calls at once, to both processes, are served: that the answer arrived is written once."""
    first, second = processes
    client = await first.installation()
    assert (await client.refresh()).status_code == 200
    there = Installation(second, tokens=client.tokens)
    answers = await asyncio.gather(*((client if number % 2 else there).get() for number in range(40)))
    assert {answer.status_code for answer in answers} == {200}
    session = await second.session(answers[0].json()["session_id"])
    assert session.grants[0].answered
