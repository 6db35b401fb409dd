"""The sample server with few file descriptors."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

from tests.parts.process import ServerProcess, free_port

__all__ = ["DESCRIPTORS", "limited_server", "seconds_used"]

DESCRIPTORS = 200
# As `ulimit -n` before the command would; the demo provider in the same process takes its share.
LIMITED = (
    f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({DESCRIPTORS}, {DESCRIPTORS}));"
    "import runpy, sys; sys.argv[0] = 'sample_server'; runpy.run_module('sample_server', run_name='__main__')"
)


@contextlib.contextmanager
def limited_server(*options: str) -> Iterator[tuple[str, str, ServerProcess]]:
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
