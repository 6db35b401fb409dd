"""A machine that runs out of something: file descriptors, time on the loop, patience with half-open connections."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import signal
import sys
from collections.abc import Iterator

import httpx

from tests.parts.process import ServerProcess, free_port
from tests.parts.sse_client import SSEClient

DESCRIPTORS = 200
# As `ulimit -n` before the command would; the demo provider in the same process takes its share.
LIMITED = (
    f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({DESCRIPTORS}, {DESCRIPTORS}));"
    "import runpy, sys; sys.argv[0] = 'sample_server'; runpy.run_module('sample_server', run_name='__main__')"
)


@contextlib.contextmanager
def sample(*options: str) -> Iterator[tuple[str, str, ServerProcess]]:
    """The sample server under a limit: its URL, a bearer, its process."""
    port = free_port()
    command = [sys.executable, "-c", LIMITED, f"--port={port}", *options]
    with ServerProcess("limited", command, ready=lambda server: server.wait_for_line("Ctrl-C ends it", 30)) as process:
        bearer = process.wait_for_line(r"Bearer ([\w-]+)").group(1)
        yield f"http://127.0.0.1:{port}", bearer, process


def seconds_used(process: ServerProcess) -> float:
    """CPU seconds of the process so far."""
    with open(f"/proc/{process.pid}/stat") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


async def test_more_connections_than_descriptors() -> None:
    """REL-23: four hundred connections on two hundred descriptors: those beyond the server's own cap are answered 503
    or closed, one line in the log says so, nothing spins; who is in is served, signs in at the provider too; and when
    the crowd has gone everybody is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 2048)), hard))
    with sample() as (url, bearer, process):
        port = int(url.rpartition(":")[2])
        headers = {"Authorization": f"Bearer {bearer}"}
        crowd: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=30) as client:
            assert (await client.get("/me", headers=headers)).status_code == 200  # keeps its connection
            async with SSEClient(f"{url}/events", bearer=bearer) as stream:
                await stream.next("tick")
                for _ in range(2 * DESCRIPTORS):
                    crowd.append(await asyncio.open_connection("127.0.0.1", port))
                answers = []
                for reader, _ in crowd[-100:]:
                    with contextlib.suppress(ConnectionError):
                        answers.append(await asyncio.wait_for(reader.read(), 20))
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
    with sample("--refresh-interval=0.2") as (url, bearer, process):
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
