"""REL-22: a client vanishes: its network link goes down, no FIN, no reset. How long is its stream kept?"""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import httpx

from tests.parts.process import ServerProcess, free_port
from tests.soak.findings import Findings
from tests.soak.soak import Soak

# TCP gives up 30 s after the first byte that nobody acknowledged, and something is sent each second.
PATIENCE = 60.0
HERE, THERE = "10.77.0.1", "10.77.0.2"


@contextmanager
def _namespace() -> Iterator[str]:
    """A network namespace with one link to ours. Raises CalledProcessError or OSError where that is not allowed."""
    name = f"tsa{os.getpid()}"
    near, far = f"{name}a", f"{name}b"
    commands = (
        f"ip netns add {name}",
        f"ip link add {near} type veth peer name {far}",
        f"ip link set {far} netns {name}",
        f"ip addr add {HERE}/24 dev {near}",
        f"ip link set {near} up",
        f"ip netns exec {name} ip addr add {THERE}/24 dev {far}",
        f"ip netns exec {name} ip link set {far} up",
    )
    try:
        for command in commands:
            subprocess.run(command.split(), check=True, capture_output=True, timeout=10)
        yield name
    finally:
        for command in (f"ip link del {near}", f"ip netns del {name}"):
            with suppress(OSError):
                subprocess.run(command.split(), capture_output=True, timeout=10)


def _cut(name: str) -> None:
    subprocess.run(f"ip netns exec {name} ip link set {name}b down".split(), check=True, timeout=10)


async def run(soak: Soak) -> Findings:
    """Once, whatever the minutes. Needs root and iproute2."""
    findings = Findings(scenario=soak.scenario)
    try:
        with _namespace() as name:
            soak.begin()
            findings.recoveries.append(await _vanish(soak, name))
    except (OSError, subprocess.CalledProcessError) as error:
        findings.must(False, f"no network namespace can be made: {error}")
    except TimeoutError:
        findings.must(False, f"the stream was still kept after {PATIENCE} s")
    return findings


async def _vanish(soak: Soak, name: str) -> float:
    """Seconds from the end of the link until the stream was forgotten."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "sample_server", f"--port={port}", "--address=0.0.0.0", f"--public-url={url}"]

    def ready(server: ServerProcess) -> None:
        server.wait_for_line("Ctrl-C ends it", 60)

    with ServerProcess("sample server", command, ready=ready) as server:
        found = re.search(r"Bearer ([\w-]+)", server.output)
        assert found is not None, server.failure("no bearer was printed")
        headers = {"Authorization": f"Bearer {found[1]}"}
        curl = ["ip", "netns", "exec", name, "curl", "-sN", "-H", f"Host: 127.0.0.1:{port}"]
        curl += ["-H", f"Authorization: {headers['Authorization']}", f"http://{HERE}:{port}/events"]

        def opened(client: ServerProcess) -> None:
            client.wait_for_line("event: tick", 20)

        with ServerProcess("curl", curl, ready=opened):
            async with httpx.AsyncClient(base_url=url, headers=headers, trust_env=False) as client:
                _cut(name)
                begun = time.monotonic()
                async with asyncio.timeout(PATIENCE):
                    while (await _streams(client)) > 0:
                        soak.tell("the link is down; waiting until the stream is forgotten")
                        await asyncio.sleep(0.5)
                return time.monotonic() - begun


async def _streams(client: httpx.AsyncClient) -> int:
    answer = await client.get("/auth/sessions")
    return sum(int(session["open_streams"]) for session in answer.json()["sessions"])
