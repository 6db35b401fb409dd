"""Sessions under attack: whose answer is whose, what ends with them, and what ids of others open."""

from __future__ import annotations

import asyncio
import json
import random

import pytest

from tests.scenarios.server import serve
from tests.security.kit import World, kept_alive, refused, world
from tornado_sse_auth import CredentialKind, MemorySessionStore
from tornado_sse_auth.listeners import Listeners
from tornado_sse_auth.testing import ManualClock


async def test_everybody_gets_their_own_answer(running: World) -> None:
    """SEC-54; fastmcp#4041: ten thousand requests of ten users in turn over ten kept-alive connections, cookies and
    bearers mixed: each answer names its user, none may be kept or compared by a cache."""
    chance = random.Random(54)
    people = []
    for number in range(10):
        user = f"user{number}"
        people.append((user, await running.cookie(user)))
        people.append((user, {"Authorization": f"Bearer {await running.bearer(user)}"}))

    async def ask(count: int) -> None:
        async with kept_alive(running.app.url) as connection:
            for _ in range(count):
                user, headers = chance.choice(people)
                status, fields, body = await connection.request("GET", "/me", headers)
                assert (status, json.loads(body)["user_id"]) == (200, user)
                assert fields["cache-control"] == "no-store"
                assert "etag" not in fields

    async with asyncio.timeout(300):
        await asyncio.gather(*(ask(1000) for _ in range(10)))
    async with running.client(headers=people[0][1]) as client:
        for method, path in (("GET", "/auth/sessions"), ("GET", "/prices"), ("POST", "/auth/token"), ("GET", "/no")):
            async with client.stream(method, path, headers={"Origin": running.app.url}) as personal:
                assert personal.headers["Cache-Control"] == "no-store"
                assert "ETag" not in personal.headers


async def test_a_second_tab_cannot_bring_a_session_back(running: World) -> None:
    """SEC-11, SEC-25, SEC-49; CVE-2021-41247: sign-out by GET is 405, by another page's form 403; after the
    real one the other tab's stream ends, its requests are 401 and whatever it sends changes nothing."""
    async with running.client() as browser:
        await running.sign_in(browser)
        cookie = {"Cookie": f"{running.app.cookie}={browser.cookies[running.app.cookie]}"}
        origin = {"Origin": running.app.url}
        refused(await browser.get("/auth/logout"), 405, "method_not_allowed")
        refused(await browser.post("/auth/logout"), 403, "invalid_origin")
        for headers in (
            {"Origin": "https://evil.example"},
            {"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "no-cors"},
            {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"},
        ):
            refused(await browser.post("/auth/logout", headers=headers), 403, "invalid_origin")
        async with running.app.stream("/prices", headers=cookie) as tab:
            await tab.next("open")
            assert (await browser.post("/auth/logout", headers=origin)).status_code == 204
            assert (await tab.next("end")).json() == {"reason": "revoked"}
            await tab.wait_for_end()
        stored = running.store.content()
        for method, path in (("GET", "/me"), ("GET", "/prices"), ("POST", "/auth/token"), ("POST", "/auth/logout")):
            refused(await browser.request(method, path, headers={**cookie, **origin}), 401, "invalid_token")
        assert running.store.content() == stored == {}


async def test_a_refresh_that_answers_for_somebody_else(caplog: pytest.LogCaptureFixture) -> None:
    """SEC-27; mod_auth_openidc 2026: over HTTP: 401, no token of that answer is given out, the user's stream ends with
    `revoked`, and the audit log says why."""
    clock = ManualClock()
    async with world(caplog, clock=clock) as running, running.client() as browser:
        await running.sign_in(browser)
        session_id = (await browser.get("/me")).json()["session_id"]
        cookie = {"Cookie": f"{running.app.cookie}={browser.cookies[running.app.cookie]}"}
        async with running.app.stream("/prices", headers=cookie) as stream:
            await stream.next("open")
            running.scripted.refresh_subject = "mallory"
            clock.advance(4000)
            refused(await browser.get("/upstream"), 401, "invalid_token")
            assert (await stream.next("end")).json() == {"reason": "revoked"}
        refused(await browser.get("/me"), 401, "invalid_token")
        assert running.store.content() == {}
        audited = [json.loads(line.message) for line in running.log.records if line.name == "tornado_sse_auth.audit"]
        ended = [(line["event"], line["reason"]) for line in audited if line["session_id"] == session_id]
        assert ended[-1] == ("revocation", "a refresh answered for another subject")
        assert ("refresh", "success") not in {(line["event"], line["outcome"]) for line in audited}


class Deaf(MemorySessionStore):
    """The same sessions as another process sees them to which no news come."""

    def __init__(self, other: MemorySessionStore) -> None:
        vars(self).update(vars(other))
        self._listeners = Listeners()

    @property
    def feed_alive(self) -> bool:
        return False


async def test_a_process_that_hears_nothing_knows_within_five_seconds(caplog: pytest.LogCaptureFixture) -> None:
    """SEC-50; CVE-2026-40934: a session, and a user, revoked in one process; another one, to which the change feed
    tells nothing, refuses the credential when its cached answer is five seconds old, and looks after open streams as
    often."""
    clock = ManualClock()
    async with world(caplog, clock=clock) as here, serve(Deaf(here.store), clock=clock) as there:
        for user, revoke in (
            ("one", lambda session: here.app.auth.sessions.revoke(session.id)),
            ("all", lambda session: here.app.auth.sessions.revoke_user(session.user_id)),
        ):
            session, secret = await here.app.auth.sessions.create(
                user_id=user, scopes={"prices:read"}, kind=CredentialKind.BEARER
            )
            headers = {"Authorization": f"Bearer {secret.reveal()}"}
            async with there.stream("/prices", headers=headers) as stream, there.client(headers=headers) as client:
                await stream.next("open")
                assert (await client.get("/me")).status_code == 200
                await revoke(session)
                clock.advance(5)
                refused(await client.get("/me"), 401, "invalid_token")
                there.auth.sessions.watch.mind_the_feed()
                assert (await stream.next("end")).json() == {"reason": "revoked"}
                assert there.auth.sessions.watch._periodic.callback_time <= 5000


async def test_what_has_expired_is_401_before_it_is_removed(caplog: pytest.LogCaptureFixture) -> None:
    """SEC-57: by its own end and by its idle end, from the cache and from the store, for cookie, bearer and stream."""
    clock = ManualClock()
    async with world(caplog, clock=clock, session_ttl=3600, idle_ttl=600) as running, running.client() as client:
        cookie, bearer = await running.cookie(), {"Authorization": f"Bearer {await running.bearer()}"}
        for headers in (cookie, bearer):
            assert (await client.get("/me", headers=headers)).status_code == 200
        clock.jump(601)  # the wall clock alone: the cache believes that no time has passed
        for headers in (cookie, bearer):
            refused(await client.get("/me", headers=headers), 401, "invalid_token")
        clock.advance(6)
        for headers in (cookie, bearer):
            refused(await client.get("/me", headers=headers), 401, "invalid_token")


async def test_a_session_in_use_does_not_end_as_unused(caplog: pytest.LogCaptureFixture) -> None:
    """Nor where it may be unused for a shorter time than the cache would keep it."""
    clock = ManualClock()
    async with world(caplog, clock=clock, idle_ttl=4, session_cache_ttl=5) as running, running.client() as client:
        cookie = await running.cookie()
        for _ in range(10):
            assert (await client.get("/me", headers=cookie)).status_code == 200
            clock.advance(1)
        clock.advance(4)
        refused(await client.get("/me", headers=cookie), 401, "invalid_token")


async def test_ids_of_others_open_nothing(running: World) -> None:
    """SEC-03, SEC-48, SEC-57: somebody else's session by its id is 404 like one that never was; operators of a query
    language are text."""
    origin = {"Origin": running.app.url}
    await running.cookie("victim")
    (victim,) = await running.app.auth.sessions.sessions_of("victim")
    mine = await running.cookie("mallory")
    async with running.client() as client:
        for session_id in (victim.id, "0" * 32, victim.id.upper(), '{"$ne":null}', "*"):
            answer = await client.delete(f"/auth/sessions/{session_id}", headers={**mine, **origin})
            refused(answer, 404, "not_found")
        for body in ({"everywhere": {"$ne": None}}, {"everywhere": 1}, {"everywhere": "true"}):
            answer = await client.post("/auth/logout", json=body, headers={**mine, **origin})
            refused(answer, 400, "invalid_request")
        for body in ({"grant": ["session"]}, {"grant": "session", "expires_in": {"$gt": 0}}, {"grant": None}):
            answer = await client.post("/auth/token", json=body, headers={**mine, **origin})
            refused(answer, 400, "invalid_request")
        listed = json.dumps((await client.get("/auth/sessions", headers=mine)).json())
    assert victim.id not in listed
    assert await running.app.auth.sessions.find(victim.id) is not None


async def test_each_users_sessions_are_bounded(caplog: pytest.LogCaptureFixture) -> None:
    """SEC-08: the oldest session of that user ends, with its stream; nobody else's does."""
    async with world(caplog, max_sessions_per_user=3) as running:
        other = await running.cookie("other")
        first = await running.cookie("u", scopes={"prices:read"})
        async with running.app.stream("/prices", headers=first) as stream, running.client() as client:
            await stream.next("open")
            latest = [await running.cookie("u") for _ in range(3)]
            assert (await stream.next("end")).json() == {"reason": "revoked"}
            for headers, status in ((first, 401), (other, 200), *((headers, 200) for headers in latest)):
                assert (await client.get("/me", headers=headers)).status_code == status
