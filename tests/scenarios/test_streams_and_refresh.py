"""Streams that outlive their tokens, and what happens to them when the session needs its user, or ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from tornado.web import RequestHandler

from tests.parts.scripted_provider import Answer, ScriptedProvider
from tests.scenarios.server import provider_at, serve
from tests.scenarios.test_sign_in import World
from tornado_sse_auth import SSEAuthMixin


class Asking(SSEAuthMixin, RequestHandler):
    """Asks for the upstream token inside its stream, whenever something is published."""

    async def get(self) -> None:
        async with self.event_stream() as stream:
            try:
                token = await self.upstream_access_token(min_ttl=0)
                await stream.send({"token": token.reveal()}, event="token")
                await self.settings["ask"].wait()
                token = await self.upstream_access_token(min_ttl=10_000)
                await stream.send({"token": token.reveal()}, event="token")
            finally:
                self.settings["ended"].set_result(stream.ended)


@pytest.fixture
async def scripted() -> AsyncIterator[ScriptedProvider]:
    async with ScriptedProvider(expires_in=2) as provider:
        yield provider


@pytest.fixture
async def world(scripted: ScriptedProvider) -> AsyncIterator[World]:
    provider = provider_at(scripted, timeout=2.0, refresh_timeout=2.0)
    options = {"refresh_interval": 0.1, "reauthorization_grace": 3.0}
    async with serve(provider=provider, handlers=[(r"/asking", Asking)], **options) as app:
        yield World(app, scripted)


def refreshes(world: World) -> int:
    return len(world.scripted.calls("token", grant_type="refresh_token"))


async def quiet(world: World) -> None:
    """The schedule is empty, and stays so over several ticks: nobody refreshes what nobody listens to."""
    async with asyncio.timeout(5):
        while len(world.app.auth.registry):  # noqa: ASYNC110 - the server has yet to see the close
            await asyncio.sleep(0.01)
    assert world.app.auth.refresh_manager.scheduled == 0
    before = refreshes(world)
    done = asyncio.Event()
    asyncio.get_running_loop().call_later(2.5, done.set)
    await done.wait()
    assert refreshes(world) == before


async def test_streams_outlive_their_token(world: World) -> None:
    """Three streams of one session: one refresh a period, none after the last has gone."""
    async with world.app.client() as browser:
        await world.sign_in(browser)
        streams = [world.app.stream("/prices", cookies=browser.cookies) for _ in range(3)]
        for stream in streams:
            await stream.__aenter__()
            opened = await stream.next("open")
            assert opened.json()["user_id"].endswith("|alice")
            assert opened.id == ""
        assert world.app.auth.registry.active_sessions == 1
        await world.scripted.wait_for_calls("token", 3, grant_type="refresh_token", timeout=15)
        assert max(world.scripted.uses.values()) == 1
        assert world.scripted.revoked_families == 0
        await world.app.auth.events.publish("prices", {"price": 1}, event="price")
        for stream in streams:
            assert (await stream.next("price")).json() == {"price": 1}
            await stream.close()
        await quiet(world)


async def test_sign_in_again_on_an_open_stream(world: World) -> None:
    """`auth_required`, sign in elsewhere, `auth_restored` on the same stream; bearers of the session stay valid."""
    app = world.app
    async with app.client() as browser, app.client() as other_browser, app.client() as script:
        await world.sign_in(browser)
        made = await browser.post("/auth/token", json={"grant": "session"}, headers={"Origin": app.url})
        bearer = made.json()["access_token"]
        authorization = {"Authorization": f"Bearer {bearer}"}
        async with (
            app.stream("/prices", bearer=bearer) as stream,
            app.stream("/prices", cookies=browser.cookies) as page,
        ):
            opened = await stream.next("open")
            await page.next("open")
            world.scripted.script("token", Answer(status=400, body='{"error": "invalid_grant"}'))
            required = (await stream.next("auth_required")).json()
            assert required["reason"] == "refresh_rejected"
            url = required["authorization_url"]
            assert url.startswith(f"{app.url}/auth/login?reauth=")
            await page.next("auth_required")
            refused = await script.get("/me", headers=authorization)
            assert (refused.status_code, refused.json()["error"]) == (401, "authorization_required")
            assert refused.json()["authorization_url"] == url
            assert 'error="invalid_token"' in refused.headers["WWW-Authenticate"]
            # Somebody else follows the link: an ordinary session of their own, this one stays as it was.
            reauth = url.partition("reauth=")[2]
            await world.sign_in(other_browser, "bob", reauth=reauth)
            assert (await other_browser.get("/me")).json()["user_id"].endswith("|bob")
            assert (await script.get("/me", headers=authorization)).status_code == 401
            await world.sign_in(browser, "alice", reauth=reauth)
            restored = (await stream.next("auth_restored")).json()
            assert restored["session_id"] == opened.json()["session_id"]
            assert (await page.next("auth_restored")).json() == restored
            assert (await script.get("/me", headers=authorization)).status_code == 200
            assert (await browser.get("/me")).json()["session_id"] == restored["session_id"]
            await app.auth.events.publish("prices", "on", event="price")
            assert (await stream.next("price")).data == "on"
            # And the link is used up.
            async with app.client() as late:
                await world.sign_in(late, "alice", reauth=reauth)
                assert (await late.get("/me")).json()["session_id"] != restored["session_id"]


async def test_the_grace_ends(world: World) -> None:
    """Nobody signs in: the stream ends with `reauthorization`; the row stays."""
    async with world.app.client() as browser:
        await world.sign_in(browser)
        async with world.app.stream("/prices", cookies=browser.cookies) as stream:
            opened = (await stream.next("open")).json()
            world.scripted.script("token", Answer(status=400, body='{"error": "invalid_grant"}'))
            await stream.next("auth_required")
            assert (await stream.next("end")).json() == {"reason": "reauthorization"}
            await stream.wait_for_end()
        assert await world.app.auth.sessions.find(opened["session_id"]) is not None


async def test_upstream_token_waits_through_the_grace(world: World) -> None:
    """Inside a stream the call returns once the user has signed in again, or raises `StreamEnded`."""
    app = world.app
    server_settings = app.server.request_callback.settings  # type: ignore[union-attr]
    async with app.client() as browser:
        for again in (True, False):
            ask = server_settings["ask"] = asyncio.Event()
            ended = server_settings["ended"] = asyncio.get_running_loop().create_future()
            await world.sign_in(browser)
            async with app.stream("/asking", cookies=browser.cookies) as stream:
                first = (await stream.next("token")).json()["token"]
                world.scripted.script("token", Answer(status=400, body='{"error": "invalid_grant"}'))
                url = (await stream.next("auth_required")).json()["authorization_url"]
                ask.set()
                if again:
                    await world.sign_in(browser, "alice", reauth=url.partition("reauth=")[2])
                    second = (await stream.next("token")).json()["token"]
                    assert second != first
                    assert second in world.scripted._access_tokens
                else:
                    assert await asyncio.wait_for(ended, 10) == "reauthorization"


async def test_sign_out_ends_the_streams_of_what_it_ends(world: World) -> None:
    """SEC-49: within a second, with the reason, and no event of the application after it."""
    async with world.app.client() as browser, world.app.client() as elsewhere:
        await world.sign_in(browser)
        await world.sign_in(elsewhere)
        mine = world.app.stream("/prices", cookies=browser.cookies)
        theirs = world.app.stream("/prices", cookies=elsewhere.cookies)
        async with mine, theirs:
            await mine.next("open")
            await theirs.next("open")
            await browser.post("/auth/logout", headers={"Origin": world.app.url})
            await world.app.auth.events.publish("prices", "late", event="price")
            assert (await mine.next("end")).json() == {"reason": "revoked"}
            await mine.wait_for_end()
            assert mine.events[-1].event == "end"
            assert (await theirs.next("price")).data == "late"
            user = (await elsewhere.get("/me")).json()["user_id"]
            await world.app.auth.sessions.revoke_user(user)
            assert (await theirs.next("end")).json() == {"reason": "revoked"}


async def test_a_narrowed_scope_ends_what_needs_it(world: World) -> None:
    """SEC-49: `insufficient_scope`; the session itself goes on."""
    async with world.app.client() as browser:
        await world.sign_in(browser)
        async with world.app.stream("/prices", cookies=browser.cookies) as stream:
            await stream.next("open")
            world.scripted.script("token", Answer(change={"scope": "openid offline_access profile"}))
            assert (await stream.next("end")).json() == {"reason": "insufficient_scope"}
        assert (await browser.get("/me")).json()["scopes"] == ["offline_access", "openid", "profile"]


async def test_the_store_forgets_a_session_that_has_streams(world: World) -> None:
    """A session deleted behind our back ends like a revoked one."""
    async with world.app.client() as browser:
        await world.sign_in(browser)
        async with world.app.stream("/prices", cookies=browser.cookies) as stream:
            session_id = (await stream.next("open")).json()["session_id"]
            await world.app.auth.store.delete(session_id)
            assert (await stream.next("end")).json() == {"reason": "revoked"}
        assert (await browser.get("/me")).status_code == 401


async def test_streams_live_while_refreshing_fails(world: World) -> None:
    """The token expires, the provider is broken: streams and requests go on, the upstream token does not."""
    async with world.app.client() as browser:
        await world.sign_in(browser)
        async with world.app.stream("/prices", cookies=browser.cookies) as stream:
            await stream.next("open")
            world.scripted.script("token", *[Answer(status=500)] * 3)
            await world.scripted.wait_for_calls("token", 2, grant_type="refresh_token", timeout=15)
            await world.app.auth.events.publish("prices", "still", event="price")
            assert (await stream.next("price")).data == "still"
            assert (await browser.get("/me")).status_code == 200
            await world.scripted.wait_for_calls("token", 4, grant_type="refresh_token", timeout=30)
            assert not stream.ended


async def test_shutdown_during_a_refresh(scripted: ScriptedProvider) -> None:
    """REL-19: streams get `retry` and `end`, the running refresh is written, and nothing waits for ever."""
    provider = provider_at(scripted, timeout=1.0)
    async with serve(provider=provider, refresh_interval=0.1) as app, app.client() as browser:
        world = World(app, scripted)
        await world.sign_in(browser)
        gate = asyncio.Event()
        async with app.stream("/prices", cookies=browser.cookies) as stream:
            session_id = (await stream.next("open")).json()["session_id"]
            scripted.script("token", Answer(gate=gate))
            await scripted.wait_for_calls("token", 1, grant_type="refresh_token")
            closing = asyncio.create_task(app.auth.close())
            assert (await stream.next("end")).json() == {"reason": "server_shutdown"}
            assert stream.retry is not None
            assert stream.retry >= 1000
            for path in ("/readyz", "/health"):
                probe = await browser.get(path)
                assert (probe.status_code, probe.headers["Retry-After"]) == (503, "1")
            gate.set()
            await asyncio.wait_for(closing, 10)
        row = await app.auth.store.find(session_id)
        assert row is not None
        assert row.token_version == 2


async def test_replay_across_reconnects(world: World) -> None:
    """Every event once, in order, whatever connection it came by; an unknown id is told as `gap`."""
    seen: list[int] = []
    last: str | None = None
    async with world.app.client() as browser:
        await world.sign_in(browser)
        for round_ in range(5):
            async with world.app.stream("/prices", cookies=browser.cookies, last_event_id=last) as stream:
                await stream.next("open")
                if round_ == 0:
                    await asyncio.sleep(0)
                for offset in range(3):
                    await world.app.auth.events.publish("prices", round_ * 10 + offset, event="price")
                    event = await stream.next("price")
                    while event.json() != round_ * 10 + offset:
                        seen.append(event.json())
                        event = await stream.next("price")
                    seen.append(event.json())
                last = event.id
            for offset in range(3, 10):
                await world.app.auth.events.publish("prices", round_ * 10 + offset, event="price")
        assert seen == list(range(43))
        async with world.app.stream("/prices", cookies=browser.cookies, last_event_id="17") as stream:
            gap = (await stream.next("gap")).json()
            assert gap["requested"] == 17
            assert gap["oldest"] > 17
            assert (await stream.next("price")).json() == 0


async def test_at_most_so_many_streams(scripted: ScriptedProvider) -> None:
    """429 for the user's hundred-and-first, 503 when the process is full; nobody is evicted."""
    async with serve(max_streams_per_user=2, max_streams=3) as app:

        async def opened(user: str) -> str:
            _, secret = await app.auth.sessions.create(user_id=user, scopes={"prices:read"})
            return secret.reveal()

        one, two = await opened("one"), await opened("two")
        streams = [app.stream("/prices", headers={"Cookie": f"{app.cookie}={value}"}) for value in (one, one, two)]
        for stream in streams:
            await stream.__aenter__()
            assert stream.status == 200
        async with app.client() as client:
            refused = await client.get("/prices", headers={"Cookie": f"{app.cookie}={one}"})
            assert refused.status_code in (429, 503)
            full = await client.get("/prices", headers={"Cookie": f"{app.cookie}={two}"})
            assert (full.status_code, full.json()["error"]) == (503, "overloaded")
            await streams[2].close()
            for _ in range(100):
                refused = await client.get("/prices", headers={"Cookie": f"{app.cookie}={one}"})
                if refused.status_code == 429:
                    break
            assert refused.json()["error"] == "too_many_streams"
            assert int(refused.headers["Retry-After"]) >= 1
        for stream in streams[:2]:
            assert not stream.ended
            await stream.close()
