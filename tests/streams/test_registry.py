"""What becomes of open streams: limits, revocation, narrowing, grace, expiry, heartbeats, drain."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import replace

import pytest

from tests.streams.serving import Serving, credential, serving, until
from tests.streams.sse import Client, connect
from tornado_sse_auth.deadlines import Deadlines
from tornado_sse_auth.identity import CredentialKind, SessionState
from tornado_sse_auth.sessions.requirements import Requirements
from tornado_sse_auth.streams import EventStream
from tornado_sse_auth.streams.registry import ABORT_AFTER
from tornado_sse_auth.streams.wheel import HeartbeatWheel
from tornado_sse_auth.testing import ManualClock


async def opened(server: Serving, client: Client, user: str = "ann", version: str = "1.1") -> Client:
    await client.request(f"/?user={user}", version=version)
    assert (await client.event()).event == "open"
    return client


# -- who is let in -----------------------------------------------------------------------------------------------------


async def test_a_user_and_a_process_have_only_so_many_streams() -> None:
    async with (
        serving(max_streams_per_user=2, max_streams=3) as server,
        connect(server.port) as one,
        connect(server.port) as two,
        connect(server.port) as three,
        connect(server.port) as four,
    ):
        await opened(server, one)
        await opened(server, two)
        assert (await three.request()).status == 429
        await opened(server, four, "bob")
        async with connect(server.port) as five:
            assert (await five.request("/?user=eve")).status == 503
        assert (server.registry.count("session of ann"), len(server.registry)) == (2, 3)
        await one.close()
        await until(lambda: len(server.registry) == 2)
        async with connect(server.port) as six:
            await opened(server, six)


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"credentials": ()}, 401),
        ({"state": SessionState.REAUTHORIZATION}, 401),
        ({"scopes": frozenset()}, 403),
        ({"idle_expires_at": 1.0}, 401),
    ],
)
async def test_a_stream_is_judged_by_the_newest_version_of_its_session(change: dict[str, object], status: int) -> None:
    """The request was authenticated with an older one, and the process has heard since."""
    async with serving() as server, connect(server.port) as one, connect(server.port) as two:
        session = server.session("ann", scopes=frozenset({"read"}))
        await opened(server, one)
        server.requirements = Requirements(scopes=frozenset({"read"}))
        group = server.registry._groups[session.id]
        group.session = replace(session, version=2, **change)  # type: ignore[arg-type]
        group.user = group.session.user_context()
        assert (await two.request()).status == status
        assert len(server.registry) == 1


async def test_a_session_that_ended_a_moment_ago_opens_nothing() -> None:
    async with serving() as server, connect(server.port) as client:
        server.ended.add(server.session("ann").id)
        assert (await client.request()).status == 401
        assert server.freed()


# -- what ends them ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"credentials": ()}, "revoked"),
        ({"scopes": frozenset()}, "insufficient_scope"),
        ({"permissions": frozenset()}, "insufficient_permission"),
        ({"subscription": "free"}, "insufficient_subscription"),
    ],
)
async def test_a_session_that_lost_something_ends_the_streams_that_need_it(
    change: dict[str, object], reason: str
) -> None:
    """SEC-49: the end event with its reason, and nothing of the application after it."""

    async def chatter(stream: EventStream) -> None:
        while True:
            await stream.send("x")
            await asyncio.sleep(0.001)

    has = {"scopes": frozenset({"read"}), "permissions": frozenset({"trade"}), "subscription": "pro"}
    async with (
        serving(subscription_levels=("free", "pro")) as server,
        connect(server.port) as needy,
        connect(server.port) as modest,
    ):
        session = server.session("ann", **has)
        server.body = chatter
        if reason != "revoked":
            await opened(server, modest)
        server.requirements = Requirements(
            scopes=frozenset({"read"}), permissions=frozenset({"trade"}), subscription="pro"
        )
        await opened(server, needy)
        changed = replace(session, version=2, **change)  # type: ignore[arg-type]
        server.registry.session_changed(changed)
        last = (await needy.rest())[-1]
        assert (last.event, json.loads(last.data)) == ("end", {"reason": reason})
        if reason != "revoked":
            assert (await modest.event()).event == "message"
            assert server.streams[0].user == changed.user_context()


@pytest.mark.parametrize("heartbeat", [0.2, 15.0, 3600.0])
async def test_what_is_due_waits_for_no_heartbeat(heartbeat: float) -> None:
    """SEC-49, SEC-51: expiries are looked for, and clients that do not read let go, within a second of their time."""
    async with serving(heartbeat=heartbeat) as server:
        assert server.registry._ticker.callback_time / 1000 + ABORT_AFTER < 1.0


async def test_a_credential_that_merely_expired_carries_its_stream_on() -> None:
    """SEC-49: the session carries the stream; expired credentials are forgotten by and by."""
    clock = ManualClock()
    async with serving(clock=clock) as server, connect(server.port) as client:
        session = server.session("ann", credentials=(credential("cookie", clock.time() + 60),))
        await opened(server, client)
        clock.advance(61)
        server.registry.session_changed(replace(session, credentials=(), version=2))
        assert len(server.registry) == 1
        server.registry.session_changed(replace(session, scopes=frozenset({"old"}), version=1))
        assert server.streams[0].user.scopes == frozenset()


async def test_sign_out_ends_what_an_expired_bearer_opened() -> None:
    """SEC-49: a bearer that was stolen opens a stream and expires; its user signs out, and a grant keeps the session.
    Also where they had to sign in again meanwhile, which has replaced the cookie it was made with."""
    clock = ManualClock()
    for again in (False, True):
        async with serving(clock=clock) as server, connect(server.port) as client:
            now = clock.time()
            page, new_page = (credential(name, now + 86_400) for name in ("page", "new page"))
            bearer = replace(credential("cookie", now + 60, CredentialKind.BEARER), parent=page.digest)
            session = server.session("ann", credentials=(page, bearer))
            await opened(server, client)
            clock.advance(61)
            changed = replace(session, credentials=(page,), version=2)
            server.registry.session_changed(changed)
            if again:
                server.registry.session_changed(replace(changed, state=SessionState.REAUTHORIZATION, version=3))
                server.registry.session_changed(replace(changed, credentials=(new_page,), version=4))
            assert len(server.registry) == 1, "the session carries it"
            server.registry.session_changed(replace(session, credentials=(), version=5))
            assert json.loads((await client.named("end")).data) == {"reason": "revoked"}


@pytest.mark.parametrize("jump", [False, True])
async def test_a_session_ends_on_the_wall_clock(jump: bool) -> None:
    """REL-11: also when that was set forwards; and later where its use has moved the end."""
    clock = ManualClock()
    async with serving(clock=clock) as server, connect(server.port) as client:
        session = server.session("ann", idle_expires_at=clock.time() + 60)
        await opened(server, client)
        clock.advance(50)
        server.registry.session_changed(replace(session, idle_expires_at=clock.time() + 60))
        clock.advance(20)
        server.registry.tick()
        assert len(server.registry) == 1
        clock.jump(41) if jump else clock.advance(41)
        server.registry.tick()
        assert json.loads((await client.named("end")).data) == {"reason": "session_expired"}
        await until(server.freed)


async def test_the_grace_ends_in_reauthorization() -> None:
    clock = ManualClock()
    async with serving(clock=clock, reauthorization_grace=60.0) as server, connect(server.port) as client:
        session = server.session("ann")
        await opened(server, client)
        needy = replace(session, state=SessionState.REAUTHORIZATION, reauth_reason="token_expired", version=2)
        server.registry.session_changed(needy)
        server.registry.session_changed(replace(needy, version=3))
        clock.advance(59)
        server.registry.tick()
        assert len(server.registry) == 1
        clock.advance(1)
        server.registry.tick()
        events = [(event.event, json.loads(event.data)) for event in await client.rest()]
        assert events == [
            (
                "auth_required",
                {"authorization_url": "https://app.example/auth/login?reauth=2", "reason": "token_expired"},
            ),
            ("end", {"reason": "reauthorization"}),
        ]
        await until(server.freed)


async def test_signing_in_again_restores_the_stream() -> None:
    """The browser has a new cookie then; a bearer that is no longer in the session does end."""
    clock = ManualClock()
    heard: list[str] = []

    async def body(stream: EventStream) -> None:
        await stream.restored()
        heard.append("restored")
        await asyncio.Event().wait()

    async with serving(clock=clock) as server, connect(server.port) as client:
        session = server.session("ann")
        server.body = body
        await opened(server, client)
        needy = replace(session, state=SessionState.REAUTHORIZATION, version=2)
        server.registry.session_changed(needy)
        await client.named("auth_required")
        clock.advance(30)
        new_cookie = credential("new cookie", session.expires_at)
        server.registry.session_changed(replace(session, credentials=(new_cookie,), version=3))
        restored = await client.named("auth_restored")
        assert json.loads(restored.data) == {"session_id": session.id, "expires_at": int(session.expires_at)}
        clock.advance(60)
        server.registry.tick()
        assert len(server.registry) == 1
        await until(lambda: heard)
        server.registry.session_changed(replace(session, credentials=(), version=4))
        assert json.loads((await client.named("end")).data) == {"reason": "revoked"}, "it stood on the new cookie"


async def test_a_protocol_of_its_own_is_told_nothing() -> None:
    class Silent(EventStream):
        __slots__ = ()

        def greeting(self, retry: float) -> bytes:
            return b""

        def notify(self, event: str, data: object) -> None:
            return

    async with serving() as server, connect(server.port) as client:
        server.stream_class = Silent
        await client.request()
        await until(lambda: server.streams)
        server.registry.session_ended("session of ann", "revoked")
        assert await client.rest() == []
        assert client.finished


# -- heartbeats and deadlines ------------------------------------------------------------------------------------------


class Member:
    def __init__(self, sent_at: float) -> None:
        self.slot = 0
        self.sent_at = sent_at


def test_nobody_is_silent_for_longer_than_a_period() -> None:
    wheel: HeartbeatWheel[Member] = HeartbeatWheel(15.0, 0.25)
    members = [Member(0.1 * number) for number in range(300)]
    gaps: list[float] = []
    beats_in_a_tick: list[int] = []
    joined = 0
    for tick in range(4 * 120):
        now = tick * 0.25 + 0.01 * (tick % 3)
        while joined < len(members) and members[joined].sent_at <= now:
            wheel.add(members[joined])
            joined += 1
        if tick == 200:  # an event to everybody: they stay spread all the same
            for member in members:
                member.sent_at = now
        silent = list(wheel.turn(now))
        beats_in_a_tick.append(len(silent))
        for member in silent:
            gaps.append(now - member.sent_at)
            member.sent_at = now
    assert max(gaps) <= 15.0 + 0.5
    assert min(gaps) > 7.0
    assert max(beats_in_a_tick) <= 2 * (300 / 30)
    for member in members:
        wheel.discard(member)
        wheel.discard(member)
    assert len(wheel) == 0
    assert list(wheel.turn(10_000.0)) == []


def test_a_wheel_that_was_held_up_visits_each_once() -> None:
    wheel: HeartbeatWheel[Member] = HeartbeatWheel(15.0, 0.25)
    members = [Member(0.0) for _ in range(100)]
    for member in members:
        wheel.add(member)
    assert list(wheel.turn(0.0)) == []
    assert sorted(map(id, wheel.turn(600.0))) == sorted(map(id, members))


def test_deadlines_keep_no_more_than_twice_what_lives() -> None:
    deadlines: Deadlines[str] = Deadlines()
    for when in range(10_000):
        deadlines.set("often", float(when))
        deadlines.set(f"once {when}", 20_000.0 + when)
        deadlines.discard(f"once {when}")
    assert len(deadlines) == 1
    assert len(deadlines._heap) <= 66
    assert deadlines.due(9_998.0) == []
    assert deadlines.due(9_999.0) == ["often"]
    assert "often" not in deadlines
    for key, due in (("c", 3.0), ("a", 1.0), ("b", 2.0)):
        deadlines.set(key, due)
    assert deadlines.due(3.0) == ["a", "b", "c"]


async def test_only_silent_streams_are_beaten() -> None:
    clock = ManualClock()
    async with serving(clock=clock) as server, connect(server.port) as idle:
        await opened(server, idle)
        async with connect(server.port) as busy:
            await opened(server, busy)
            for _ in range(4 * 40):
                clock.advance(0.25)
                server.registry.tick()
                await server.streams[1].send("x")
            await server.log.publish("news", "last")
            while (await busy.event()).data != "last":
                pass
            assert (await idle.event()).data == "last"
            assert busy.parser.comments == []
            assert idle.parser.comments in (["", ""], ["", "", ""])


# -- coming and going --------------------------------------------------------------------------------------------------


async def test_streams_come_and_go() -> None:
    """REL-28: registry, wheel, heaps, hub and tasks are back where they were, five times; thousands of streams come
    and go in tests/scenarios."""
    async with serving(max_streams_per_user=3, heartbeat=1.0) as server:
        before = len(asyncio.all_tasks())
        for _ in range(5):
            sockets = []
            for batch in range(4):
                for number in range(100):
                    reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=1024)
                    user = (batch * 100 + number) // 2
                    writer.write(f"GET /?user={user} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
                    sockets.append((reader, writer))
                await until(lambda: len(server.registry) == len(sockets))  # noqa: B023
            assert server.registry.active_sessions == 200
            server.streams.clear()
            for _, writer in sockets:
                writer.transport.abort()
            await until(server.freed)
        await until(lambda: len(asyncio.all_tasks()) <= before)
        assert server.metrics.counters == {"stream.opened": 2_000, "stream.closed.client": 2_000}
        assert (len(server.first), len(server.last)) == (1_000, 1_000)


async def test_drain_tells_each_when_to_return_and_waits_for_nobody() -> None:
    """REL-19: new streams are refused, open ones get `retry` and `end`; who does not read is reset."""

    async def flood(stream: EventStream) -> None:
        while True:
            await stream.send("x" * 60_000)

    async with serving() as server, connect(server.port, limit=65_536) as stalled:
        server.body = flood
        await stalled.request()
        await until(lambda: server.streams[0]._opened.queued > 262_144 if server.streams else False)
        server.body = lambda stream: stream.follow("news")
        clients = [Client(*await asyncio.open_connection("127.0.0.1", server.port)) for _ in range(20)]
        for client in clients:
            await opened(server, client)
        begun = time.monotonic()
        draining = asyncio.create_task(server.registry.drain(1.0))
        await asyncio.sleep(0)
        async with connect(server.port) as late:
            assert (await late.request()).status == 503
        retries = set()
        for client in clients:
            assert [json.loads(event.data) for event in await client.rest()] == [{"reason": "server_shutdown"}]
            retries.add(client.parser.retries[-1])
            await client.close()
        await draining
        assert time.monotonic() - begun < 1.5
        assert len(retries) > 15
        await until(server.freed)
        await stalled.gone()
