"""One stream: what it sends, how it ends, and that nothing of it stays."""

from __future__ import annotations

import asyncio
import gc
import json
import socket
import ssl
import time
import weakref
from pathlib import Path

import pytest
from tornado.iostream import IOStream

from tests.streams.serving import serving, until
from tests.streams.sse import BOUND, connect
from tornado_sse_auth.errors import ConfigurationError, RequestTooLargeError, StreamEnded
from tornado_sse_auth.streams import EventStream
from tornado_sse_auth.streams.response import StreamResponse

BIG = "x" * 60_000


async def stay(stream: EventStream) -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize("version", ["1.1", "1.0"])
async def test_a_stream_begins_with_its_headers_and_an_open_event(version: str) -> None:
    async def body(stream: EventStream) -> None:
        await stream.comment("a word")
        await stream.send({"price": 1}, event="price", id="7")
        await stream.send(" two\nlines")

    async with serving(settings={"compress_response": True}) as server, connect(server.port) as client:
        server.body = body
        await client.request(version=version, Accept_Encoding="gzip", Connection="keep-alive")
        assert client.headers["content-type"] == "text/event-stream"
        assert client.headers["cache-control"] == "no-store"
        assert client.headers["x-accel-buffering"] == "no"
        assert "content-encoding" not in client.headers
        assert client.headers["connection"] == "close"
        opened = await client.event()
        session = server.session("ann")
        assert opened.event == "open"
        assert json.loads(opened.data) == {
            "user_id": "ann",
            "session_id": session.id,
            "expires_at": int(session.expires_at),
        }
        events = [(event.event, event.data, event.id) for event in await client.rest()]
        assert events == [("price", '{"price":1}', "7"), ("message", " two\nlines", "7")]
        assert client.finished
        assert client.parser.comments == ["a word"]
        assert 1000 <= client.parser.retries[0] <= 3000
        await until(server.freed)
        assert server.left == ["completed"]


async def test_a_completed_answer_to_a_post_leaves_its_connection_for_the_next_request() -> None:
    async def body(stream: EventStream) -> None:
        await stream.send("x")

    async with serving() as server, connect(server.port) as client:
        server.body = body
        for _ in range(3):
            await client.request(method="POST", Content_Length="0")
            assert "connection" not in client.headers
            assert [event.event for event in await client.rest()] == ["open", "message"]
        assert server.metrics.counters["stream.closed.completed"] == 3


async def test_what_answers_a_get_is_the_last_on_its_connection() -> None:
    """REL-19: such a stream ends by a close when its process does. A proxy that had not been told so from the beginning
    sends the next request on the connection, and loses it."""

    async def body(stream: EventStream) -> None:
        await stream.send("x")

    async with serving() as server, connect(server.port) as client:
        server.body = body
        await client.request()
        assert client.headers["connection"] == "close"
        assert [event.event for event in await client.rest()] == ["open", "message"]
        assert client.finished
        async with asyncio.timeout(BOUND):
            assert await client.reader.read() == b""


async def test_what_cannot_be_sent_raises_and_harms_nothing() -> None:
    """SEC-47: nothing of it reaches the wire."""
    raised = []

    async def body(stream: EventStream) -> None:
        for call in (
            stream.send("x", event="a\nb"),
            stream.send("x", id="a\0"),
            stream.send("x", event="a\ud800"),
            stream.send("\ud800"),
            stream.comment("\ud800"),
            stream.send("x" * 1_048_577),
            stream.retry(-1),
        ):
            with pytest.raises((ValueError, RequestTooLargeError)) as caught:
                await call
            raised.append(caught.type)
        for bad in ("a\nb", "a\rb", "a\0b", "a\ud800"):
            with pytest.raises(ValueError):
                stream.offer("x", event=bad)
        await stream.send("fine")

    async with serving() as server, connect(server.port) as client:
        server.body = body
        await client.request()
        assert [event.data for event in await client.rest()][1:] == ["fine"]
        assert client.parser.comments == []
        assert len(raised) == 7


async def test_the_end_cancels_the_body_and_goes_no_further() -> None:
    """As asyncio.timeout does: inner scopes see a cancellation, what stands after the `async with` does not."""
    seen: list[object] = []

    async def body(stream: EventStream) -> None:
        try:
            async with asyncio.timeout(60):
                await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append("cancelled")
            with pytest.raises(StreamEnded) as caught:
                await stream.send("too late")
            seen.append(caught.value.reason)
            raise

    async with serving() as server, connect(server.port) as client:
        server.body = body
        await client.request()
        await until(lambda: server.streams)
        server.registry.session_ended("session of ann", "revoked")
        events = await client.rest()
        assert [(event.event, event.data) for event in events[1:]] == [("end", '{"reason":"revoked"}')]
        assert client.finished
        await client.gone()
        await until(server.freed)
        assert seen == ["cancelled", "revoked"]
        assert server.left == ["revoked"]
        assert server.failures == []


async def test_an_end_in_the_bodys_last_step_is_not_felt_afterwards() -> None:
    async def body(stream: EventStream) -> None:
        stream.end("revoked")

    async with serving() as server, connect(server.port) as client:
        server.body = body
        await client.request()
        await client.rest()
        await until(lambda: server.left)
        assert server.left == ["revoked"]
        assert server.failures == []


async def test_somebody_elses_cancellation_is_let_through() -> None:
    tasks: list[asyncio.Task[None] | None] = []

    async def body(stream: EventStream) -> None:
        tasks.append(asyncio.current_task())
        await asyncio.Event().wait()

    async with serving() as server, connect(server.port) as client:
        server.body = body
        await client.request()
        await until(lambda: tasks)
        task = tasks[0]
        assert task is not None
        server.streams[0].end("revoked")
        task.cancel()
        await client.rest()
        await until(server.freed)
        assert task.cancelled()
        assert server.left == []


async def test_an_error_of_the_body_ends_the_stream_and_is_reported() -> None:
    async def body(stream: EventStream) -> None:
        raise LookupError("of the application")

    async with serving() as server, connect(server.port) as client:
        server.body = body
        await client.request()
        assert [event.data for event in await client.rest()][1:] == ['{"reason":"error"}']
        await until(server.freed)
        assert [type(error) for error in server.failures] == [LookupError]
        assert server.metrics.counters["stream.closed.error"] == 1


async def test_ends_that_race_count_once() -> None:
    async with serving() as server, connect(server.port) as client:
        server.body = stay
        await client.request()
        await until(lambda: server.streams)
        stream = server.streams[0]
        client.writer.close()
        stream.end("revoked")
        stream.end("session_expired")
        server.registry.session_ended("session of ann", "reauthorization")
        await until(server.freed)
        assert stream.ended == "revoked"
        assert server.metrics.counters == {"stream.opened": 1, "stream.closed.revoked": 1}
        assert [name for name, _ in server.metrics.timings] == ["stream.lifetime"]
        assert (server.first, server.last) == (["session of ann"], ["session of ann"])


async def test_a_client_that_leaves_is_forgotten() -> None:
    async with serving() as server:
        server.body = stay
        async with connect(server.port) as client:
            await client.request()
            await client.event()
        await until(server.freed)
        assert server.left == ["client"]


async def test_a_client_that_left_before_the_first_byte() -> None:
    """REL-26."""
    async with serving() as server:
        server.body = stay
        server.gate.clear()
        async with connect(server.port) as client:
            client.writer.write(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
            await until(lambda: server.prepared)
        await until(lambda: server.closed)
        server.gate.set()
        await until(lambda: server.left)
        assert server.left == ["client"]
        assert server.failures == []
        await until(server.freed)


async def test_send_waits_for_room() -> None:
    """REL-20: what is queued for a client that does not read stays bounded."""
    highest = 0
    sent = 0

    async def body(stream: EventStream) -> None:
        nonlocal highest, sent
        for number in range(300):
            await stream.send(BIG, id=str(number))
            sent += 1
            assert stream._response is not None
            highest = max(highest, stream._response.queued)

    async with serving() as server, connect(server.port, limit=65_536) as client:
        server.body = body
        await client.request()
        await until(lambda: highest > server.options.max_stream_buffer)
        stalled_at = sent
        assert highest <= server.options.max_stream_buffer + 61_000
        ids = [event.id for event in await client.rest()][1:]
        assert ids == [str(number) for number in range(300)]
        assert stalled_at < 300
        await until(server.freed)


async def test_what_is_offered_waits_for_nobody() -> None:
    """An offer ends a stream whose client does not read, but not one whose buffer a replay or `send` has filled."""
    missed = 0

    async def replay(stream: EventStream) -> None:
        nonlocal missed
        for number in range(300):
            await stream.send(BIG, id=str(number))
            assert stream._response is not None
            missed += stream._response.queued > server.options.max_stream_buffer
            stream.offer("tick", event="tick")
            assert stream.ended is None

    async def flood(stream: EventStream) -> None:
        while stream.ended is None:
            stream.offer(BIG)
            await asyncio.sleep(0)
        await stay(stream)

    async with serving() as server:
        server.body = replay
        async with connect(server.port, limit=65_536) as client:
            await client.request()
            await until(lambda: missed)
            events = await client.rest()
            assert [event.id for event in events if event.event == "message"] == [str(number) for number in range(300)]
            assert len([event for event in events if event.event == "tick"]) < 300
        server.body = flood
        async with connect(server.port, limit=65_536) as client:
            await client.request()
            await until(lambda: "slow_consumer" in server.left)
        await until(server.freed)


async def test_a_body_of_several_tasks_ends_like_any_other() -> None:
    """`follow` in one task and `send` in another: the end is no failure."""

    async def body(stream: EventStream) -> None:
        async def send() -> None:
            while True:
                await stream.send("x")
                await asyncio.sleep(0.01)

        async with asyncio.TaskGroup() as group:
            group.create_task(stream.follow("prices"))
            group.create_task(send())

    async with serving() as server, connect(server.port) as client:
        server.body = body
        await client.request()
        await until(lambda: server.streams)
        server.registry.session_ended("session of ann", "revoked")
        await client.rest()
        await until(server.freed)
        assert server.failures == []


async def test_a_body_that_never_waits_leaves_the_loop_its_turns() -> None:
    turns: list[int] = []

    async def body(stream: EventStream) -> None:
        loop = asyncio.get_running_loop()

        def turn() -> None:
            turns.append(len(turns))
            loop.call_soon(turn)

        turn()
        for _ in range(1000):  # fits the socket's buffers: no send waits for the client
            await stream.send("x" * 1000)
        assert len(turns) > 10
        turn = int  # type: ignore[assignment]

    async with serving() as server, connect(server.port) as client:
        server.body = body
        await client.request()
        assert len(await client.rest()) == 1001
        assert server.failures == []


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "TLS"])
async def test_ending_a_stalled_stream_frees_everything(tmp_path: Path, secure: bool) -> None:
    """REL-21, SEC-51: task, handler, stream and socket are gone within a second, though the client reads nothing."""
    ours, theirs = contexts(tmp_path) if secure else (None, None)
    handlers: list[weakref.ref[object]] = []

    async def body(stream: EventStream) -> None:
        handlers.append(weakref.ref(stream._handler))
        while True:
            await stream.send(BIG)

    async with serving(tls=ours) as server:
        before = len(asyncio.all_tasks())
        server.body = body
        async with connect(server.port, tls=theirs, limit=65_536) as client:
            await client.request()
            await until(lambda: server.streams and server.streams[0]._opened.queued > 262_144)
            iostream = server.streams[0]._opened._iostream
            begun = time.monotonic()
            server.registry.session_ended("session of ann", "revoked")
            await until(iostream.closed)
            assert time.monotonic() - begun < 1.0
            await until(server.freed)
            await until(lambda: len(asyncio.all_tasks()) <= before)
            server.streams.clear()
            gc.collect()
            assert handlers[0]() is None
            await client.gone()


async def test_a_body_that_ignores_its_cancellation_cannot_keep_the_connection() -> None:
    release = asyncio.Event()

    async def body(stream: EventStream) -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    async with serving() as server, connect(server.port) as client:
        server.body = body
        await client.request()
        await until(lambda: server.streams)
        server.registry.session_ended("session of ann", "revoked")
        await client.named("end")
        await client.gone()
        release.set()
        await until(server.freed)
        await until(lambda: server.left == ["revoked"])


async def test_the_socket_notices_a_peer_that_vanished() -> None:
    """REL-22: the option is set; the kernel does the rest."""
    async with serving() as server, connect(server.port) as client:
        server.body = stay
        await client.request()
        await until(lambda: server.streams)
        sock = server.streams[0]._opened._iostream.socket
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 30_000
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_a_stream_is_used_as_it_is_meant() -> None:
    async def body(stream: EventStream) -> None:
        with pytest.raises(ConfigurationError):
            await stream.__aenter__()
        with pytest.raises(ConfigurationError):
            StreamResponse(stream._handler)  # type: ignore[arg-type]
        following = asyncio.create_task(stream.follow("news"))
        await asyncio.sleep(0)
        with pytest.raises(ConfigurationError):
            await stream.send("x", id="7")
        with pytest.raises(ConfigurationError):
            await stream.follow("other")
        following.cancel()

    async with serving() as server, connect(server.port) as client:
        server.body = body
        await client.request()
        await client.rest()
        assert server.failures == []
        assert server.left == ["completed"]


async def test_a_stream_goes_through_tls(tmp_path: Path) -> None:
    ours, theirs = contexts(tmp_path)

    async def body(stream: EventStream) -> None:
        for number in range(50):
            await stream.send(BIG, id=str(number))

    async with serving(tls=ours) as server, connect(server.port, tls=theirs) as client:
        server.body = body
        await client.request()
        assert [event.id for event in await client.rest()][1:] == [str(number) for number in range(50)]


def test_tornado_still_has_the_buffer_that_is_measured() -> None:
    """`StreamResponse.queued` reads what Tornado does not publish."""
    import tornado.iostream

    assert len(tornado.iostream._StreamBuffer()) == 0
    assert "_write_buffer" in IOStream.writing.__code__.co_names


def contexts(folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """TLS for a server, and for a client that believes it."""
    certificate, key = self_signed(folder)
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(certificate, key)
    client = ssl.create_default_context(cafile=str(certificate))
    client.check_hostname = False
    return server, client


def self_signed(folder: Path) -> tuple[Path, Path]:
    import datetime
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .sign(key, hashes.SHA256())
    )
    certificate_file, key_file = folder / "certificate.pem", folder / "key.pem"
    certificate_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return certificate_file, key_file
