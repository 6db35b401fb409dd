"""A machine that runs out of something: file descriptors, time on the loop, patience with half-open connections."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import resource
import signal
import socket
import sys

import httpx
import pytest
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

from tests.parts.limited_server import DESCRIPTORS, limited_server, seconds_used
from tests.parts.sse_client import SSEClient
from tests.scenarios.server import serve
from tornado_sse_auth import BoundedHTTPServer
from tornado_sse_auth.web.admission import Admission


async def test_more_connections_than_descriptors() -> None:
    """REL-23: four hundred connections on two hundred descriptors: those beyond the server's own cap are answered 503
    or closed, one line in the log says so, nothing spins; who is in is served, signs in at the provider too; and when
    the crowd has gone everybody is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 2048)), hard))
    with limited_server() as (url, bearer, process):
        port = int(url.rpartition(":")[2])
        headers = {"Authorization": f"Bearer {bearer}"}
        crowd: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=30) as client:
            assert (await client.get("/me", headers=headers)).status_code == 200  # keeps its connection
            async with SSEClient(f"{url}/events", bearer=bearer) as stream:
                await stream.next("tick")
                for _ in range(2 * DESCRIPTORS):
                    crowd.append(await asyncio.open_connection("127.0.0.1", port))
                # Who says nothing is handed over by the kernel's timer, in no order.
                reads = [asyncio.create_task(reader.read()) for reader, _ in crowd]
                async with asyncio.timeout(30):
                    while sum(read.done() for read in reads) < DESCRIPTORS:  # noqa: ASYNC110 - any of them
                        await asyncio.sleep(0.05)
                answers = [read.result() for read in reads if read.done() and read.exception() is None]
                assert any(answer.startswith(b"HTTP/1.1 503 ") and b'"overloaded"' in answer for answer in answers)
                assert all(not answer or answer.startswith(b"HTTP/1.1 503 ") for answer in answers)
                used = seconds_used(process)
                for _ in range(2):
                    await stream.next("tick")
                assert seconds_used(process) - used < 1.0  # a spinning loop would have used both seconds, and more
                login = await client.get("/auth/login", params={"login_hint": "ada"})
                assert login.status_code == 302
                assert process.output.count("turned away") <= 3
                for _, writer in crowd:
                    writer.close()
                await asyncio.gather(*reads, return_exceptions=True)
                async with asyncio.timeout(30):
                    while True:
                        async with httpx.AsyncClient(base_url=url, trust_env=False) as newcomer:
                            with contextlib.suppress(httpx.TransportError):
                                if (await newcomer.get("/me", headers=headers)).status_code == 200:
                                    break
        process.signal(signal.SIGTERM)
        assert process.wait(20) == 0
        assert "Traceback" not in process.output


async def test_a_loop_that_stood_still_signs_nobody_out() -> None:
    """REL-25, REL-11: the whole process stands still for three seconds: its stream and its session go on, nobody is
    told to sign in, and the ticks come at their pace again, none twice."""
    with limited_server("--refresh-interval=0.2") as (url, bearer, process):
        async with (
            httpx.AsyncClient(base_url=url, trust_env=False, timeout=30) as client,
            SSEClient(f"{url}/events", bearer=bearer) as stream,
        ):
            await stream.next("tick")
            with process.stopped():
                await asyncio.sleep(3.0)
            before = (await stream.next("tick")).json()["seq"]
            assert (await stream.next("tick")).json()["seq"] == before + 1
            assert (await client.get("/me", headers={"Authorization": f"Bearer {bearer}"})).status_code == 200
            assert not stream.ended
        assert "Traceback" not in process.output
        assert '"reauthorization"' not in process.output


async def test_bodies_that_never_end_have_a_bound_together() -> None:
    """SEC-08, SEC-60: thirty connections hold half a body each, before anybody is asked who they are: beyond
    `max_body_memory` the connection that brings more is closed, others are served, and what is given up is free."""

    class Echo(RequestHandler):
        def post(self) -> None:
            self.write(str(len(self.request.body)))

    server = BoundedHTTPServer(Application([("/", Echo)]), max_body_memory=2_000_000, max_body_size=1_000_000)
    sockets = bind_sockets(0, "127.0.0.1")
    port = sockets[0].getsockname()[1]
    server.add_sockets(sockets)
    head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 900000\r\n\r\n"
    held = []
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=30) as client:
        for _ in range(30):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(head + b"x" * 400_000)
            held.append((reader, writer))
        ends = [asyncio.create_task(reader.read()) for reader, _ in held]
        async with asyncio.timeout(20):
            while sum(end.done() for end in ends) < 24:  # noqa: ASYNC110 - six have two million bytes between them
                await asyncio.sleep(0.01)
        assert 0 <= server.body_memory <= 2_000_000
        assert (await client.post("/", content=b"small")).text == "5"
        for _, writer in held:
            writer.close()
        assert {
            end if isinstance(end, bytes) else b"" for end in await asyncio.gather(*ends, return_exceptions=True)
        } == {b""}
        async with asyncio.timeout(20):
            while server.body_memory < 2_000_000:  # noqa: ASYNC110 - the server has yet to see the closes
                await asyncio.sleep(0.01)
        assert (await client.post("/", content=b"x" * 900_000)).text == "900000"
        assert server.body_memory == 2_000_000
    server.stop()
    await server.close_all_connections()


class Hello(RequestHandler):
    def get(self) -> None:
        self.finish("hello")


async def test_who_waits_to_be_accepted_as_the_server_stops_is_served() -> None:
    """REL-19: a proxy has connected and sent its request; the kernel would reset both with the listening socket."""
    server = BoundedHTTPServer(Application([("/", Hello)]))
    (listener,) = bind_sockets(0, "127.0.0.1")
    server.add_socket(listener)
    with socket.create_connection(listener.getsockname(), timeout=10) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n")
        server.stop()
        answer = await asyncio.to_thread(client.makefile("rb").read)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.endswith(b"hello")
    await server.close_all_connections()


async def test_who_has_connected_and_sent_nothing_yet_is_served_when_the_server_closes() -> None:
    """REL-19: a proxy has connected and is about to send its request. The kernel holds such a connection back, and
    would reset it with the listening socket."""
    async with serve(drain_timeout=10.0) as running:
        server = BoundedHTTPServer(running.server.request_callback)
        (listener,) = bind_sockets(0, "127.0.0.1")
        server.add_socket(listener)
        address = listener.getsockname()
        with socket.create_connection(address, timeout=20) as client:
            async with asyncio.timeout(20):
                await running.auth.close(server)
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(address, timeout=20)
            client.sendall(b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            answer = await asyncio.to_thread(client.makefile("rb").read)
        assert answer.startswith(b"HTTP/1.1 200 ")
        await server.close_all_connections()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can be told to begin no more connections")
async def test_who_connects_just_as_the_server_stops_is_refused_and_not_reset(monkeypatch: pytest.MonkeyPatch) -> None:
    """REL-19: between the last accept and the close of the socket. A proxy gives what was refused to another process;
    what was reset may have been taken."""
    server = BoundedHTTPServer(Application([("/", Hello)]))
    (listener,) = bind_sockets(0, "127.0.0.1")
    server.add_socket(listener)
    address = listener.getsockname()
    drain = Admission.drain
    with socket.socket() as late:
        late.setblocking(False)

        def drain_and_be_preempted(admission: Admission) -> None:
            drain(admission)
            late.connect_ex(address)

        monkeypatch.setattr(Admission, "drain", drain_and_be_preempted)
        server.stop()
        answered, loop = asyncio.Event(), asyncio.get_running_loop()
        loop.add_writer(late, answered.set)
        await asyncio.wait_for(answered.wait(), 20)
        loop.remove_writer(late)
        assert late.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux is told to begin no more connections")
async def test_a_socket_that_others_have_too_serves_them_on_when_one_server_stops() -> None:
    """REL-19: processes that were forked share their listening socket, and systemd keeps what it hands out. What one
    of them did to it must not keep anybody from the rest."""
    one, other = BoundedHTTPServer(Application([("/", Hello)])), BoundedHTTPServer(Application([("/", Hello)]))
    (listener,) = bind_sockets(0, "127.0.0.1")
    address = listener.getsockname()
    shared = listener.dup()
    other.add_socket(shared)
    one.add_socket(listener)
    deferred = shared.getsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT)
    one.prepare_stop()
    one.stop()
    assert shared.getsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT) == deferred > 0
    async with asyncio.timeout(20):
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"GET / HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n")
        assert (await reader.read()).endswith(b"hello")
    writer.close()
    other.stop()
    await other.close_all_connections()
