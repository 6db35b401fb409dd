"""What a stream may be made to say, and to whom: event content, Last-Event-ID, sessions that end under it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from tornado.web import RequestHandler

from tests.parts.sse_client import EventStreamParser
from tests.security.kit import refused, world
from tornado_sse_auth import SSEAuthMixin
from tornado_sse_auth.testing import ManualClock

INJECTIONS = [
    "x\ndata: forged\n\nevent: forged\ndata: y\n\n",
    "x\r\rdata: forged\r\r",
    "x\r\n\r\nid: 1\r\nevent: forged\r\ndata:\r\n\r\n",
    "\n\n\n",
    " leading space",
    ": a comment",
    "data: itself",
    "\x00\x1c\x85\u2028\u2029\ufeff",
    "",
]


class Board(SSEAuthMixin, RequestHandler):
    """A channel a user: what they post, they alone read."""

    async def get(self) -> None:
        async with self.event_stream() as stream:
            await stream.follow(f"board:{self.current_user.user_id}")

    async def post(self) -> None:
        body = self.json_object()
        await self.sse_auth.events.publish(f"board:{self.current_user.user_id}", body["data"], event=body["event"])
        self.set_status(202)


async def test_content_cannot_forge_an_event(caplog: pytest.LogCaptureFixture) -> None:
    """SEC-47, SEC-12; CVE-2026-44214: over HTTP, whatever a user may post: one event each, equal to what was posted;
    a name that could break out is refused, and nothing of it reaches anybody."""
    async with world(caplog, handlers=[(r"/board", Board)]) as running, running.client() as client:
        headers = {"Authorization": f"Bearer {await running.bearer()}"}
        async with running.app.stream("/board", headers=headers) as stream:
            await stream.next("open")
            for data in INJECTIONS:
                for name in ("a\nb", "a\rb", "a\0b"):
                    refused(
                        await client.post("/board", json={"event": name, "data": data}, headers=headers),
                        500,
                        "server_error",
                    )
                sent = await client.post("/board", json={"event": "note", "data": data}, headers=headers)
                assert sent.status_code == 202
                event = await stream.next()
                assert event.event == "note"
                assert event.data == "\n".join(data.replace("\r\n", "\n").replace("\r", "\n").split("\n"))
            assert [event.event for event in stream.events[1:]] == ["note"] * len(INJECTIONS)


async def test_last_event_id_never_leads_to_somebody_elses_events(caplog: pytest.LogCaptureFixture) -> None:
    """SEC-48, SEC-03: another user's id, numbers at every border, control characters, a megabyte: a gap of one's own
    channel, a refusal, and never an event of another."""
    async with world(caplog, handlers=[(r"/board", Board)]) as running, running.client() as client:
        alice = {"Authorization": f"Bearer {await running.bearer('alice')}"}
        mallory = {"Authorization": f"Bearer {await running.bearer('mallory')}"}
        async with running.app.stream("/board", headers=alice) as stream:
            await stream.next("open")
            for number in range(3):
                await client.post("/board", json={"event": "note", "data": f"secret {number}"}, headers=alice)
            known = (await stream.next("note")).id
        wrong = (
            known,
            "0",
            "1",
            "-1",
            "9" * 19,
            "9" * 40,
            str(2**63),
            "0x10",
            "1e3",
        )
        for value in (*wrong, "null", "{$gt:0}", "*", "a" * 10_000):
            async with running.app.stream("/board", headers=mallory, last_event_id=value) as stream:
                assert (await stream.next("open")).json()["user_id"] == "mallory"
                sent = await client.post("/board", json={"event": "note", "data": "mine"}, headers=mallory)
                assert sent.status_code == 202
                while (event := await stream.next()).event != "note":
                    assert event.event == "gap"
                assert "secret" not in "".join(event.data for event in stream.events)
        async with running.app.stream("/board", headers=alice, last_event_id=known) as stream:
            assert [(await stream.next("note")).data for _ in range(2)] == ["secret 1", "secret 2"]
        host = running.app.url.removeprefix("http://")
        head = f"GET /board HTTP/1.1\r\nHost: {host}\r\nAuthorization: {mallory['Authorization']}\r\nLast-Event-ID: "
        for value in (b"a" * 1_000_000, b"1\x00", b"1\x07"):
            assert b" 200 " not in (await running.raw(head.encode() + value + b"\r\n\r\n")).partition(b"\r\n")[0]


class Restless(SSEAuthMixin, RequestHandler):
    """Sends without pause, and would go on for ever."""

    required_permissions = {"trade"}

    async def get(self) -> None:
        async with self.event_stream() as stream:
            number = 0
            while True:
                number += 1
                await stream.send({"number": number}, event="price")
                await asyncio.sleep(0)


class Lenient(SSEAuthMixin, RequestHandler):
    """A method that asks for less than its class."""

    required_subscription = "pro"

    async def get(self) -> None:
        self.require(subscription="free")
        async with self.event_stream() as stream:
            await stream.over()


class Slow(SSEAuthMixin, RequestHandler):
    """Has something to wait for before its stream begins."""

    required_scopes = {"prices:read"}

    async def get(self) -> None:
        self.settings["waits"].set()
        await self.settings["gate"].wait()
        async with self.event_stream() as stream:
            await stream.over()


@pytest.mark.parametrize("seconds", [1, 30])
@pytest.mark.parametrize("reason", ["insufficient_scope", "signed out", "revoked", None])
async def test_what_happened_before_a_stream_was_opened(
    caplog: pytest.LogCaptureFixture, reason: str | None, seconds: int
) -> None:
    """SEC-49, SEC-50: after a request was authenticated its session loses a scope or the credential, or ends, while the
    handler waits for something else, also for longer than ends are remembered: the stream that it then opens ends,
    too, unless it is refused."""
    clock = ManualClock()
    async with world(caplog, clock=clock, handlers=[(r"/slow", Slow)]) as running:
        sessions = running.app.auth.sessions
        session, secret = await sessions.create(user_id="u", scopes={"prices:read"})
        settings = running.app.server.request_callback.settings  # type: ignore[union-attr]
        settings.update(waits=asyncio.Event(), gate=asyncio.Event())
        stream = running.app.stream("/slow", headers={"Cookie": f"{running.app.cookie}={secret.reveal()}"})
        opening = asyncio.create_task(stream.__aenter__())
        await asyncio.wait_for(settings["waits"].wait(), 10)
        if reason == "revoked":
            await sessions.revoke(session.id)
        elif reason is not None:
            lost: Any = {"credentials": ()} if reason == "signed out" else {"scopes": frozenset()}
            await sessions.update(session.id, lambda stored: replace(stored, **lost))
        await asyncio.sleep(0)  # the feed tells it
        clock.advance(seconds)
        await sessions.revoke((await sessions.create(user_id="other"))[0].id)  # with which older ones are forgotten
        settings["gate"].set()
        try:
            await opening
            if stream.status == 200:
                await stream.next("open")
                if reason is None:
                    await sessions.revoke(session.id)
                ended = "insufficient_scope" if reason == "insufficient_scope" else "revoked"
                assert (await stream.next("end")).json() == {"reason": ended}
            else:
                assert (stream.status, reason, seconds) == (401, "revoked", 1)
        finally:
            await stream.close()


async def test_asking_for_less_takes_nothing_back(caplog: pytest.LogCaptureFixture) -> None:
    """SEC-17, SEC-49: of two levels the higher holds, for the request and for its stream, which ends when the user has
    only the lower one left."""
    async with world(caplog, handlers=[(r"/lenient", Lenient)]) as running, running.client() as client:
        free = {"Authorization": f"Bearer {await running.bearer('free', subscription='free')}"}
        refused(await client.get("/lenient", headers=free), 403, "insufficient_subscription")
        session, secret = await running.app.auth.sessions.create(user_id="u", subscription="pro")
        cookie = {"Cookie": f"{running.app.cookie}={secret.reveal()}"}
        async with running.app.stream("/lenient", headers=cookie) as stream:
            await stream.next("open")
            await running.app.auth.sessions.update(session.id, lambda stored: replace(stored, subscription="free"))
            assert (await stream.next("end")).json() == {"reason": "insufficient_subscription"}


async def test_no_event_of_the_application_after_the_end(caplog: pytest.LogCaptureFixture) -> None:
    """SEC-49, SEC-50: a session that is revoked while its handler sends without pause, read as bytes: the end event is
    the last thing in the stream."""
    async with world(caplog, handlers=[(r"/restless", Restless)]) as running:
        session, secret = await running.app.auth.sessions.create(user_id="u", permissions={"trade"})
        reader, writer = await asyncio.open_connection("127.0.0.1", int(running.app.url.rpartition(":")[2]))
        cookie = f"{running.app.cookie}={secret.reveal()}"
        host = running.app.url.removeprefix("http://")
        writer.write(f"GET /restless HTTP/1.0\r\nHost: {host}\r\nCookie: {cookie}\r\n\r\n".encode())
        received = await reader.readuntil(b'"number":50}')
        await running.app.auth.sessions.revoke(session.id)
        async with asyncio.timeout(10):
            received += await reader.read()
        writer.close()
    events = EventStreamParser().feed(received.partition(b"\r\n\r\n")[2])
    assert events[0].event == "open"
    assert (events[-1].event, events[-1].json()) == ("end", {"reason": "revoked"})
    assert [event.event for event in events[1:-1]] == ["price"] * (len(events) - 2)
