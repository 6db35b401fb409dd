"""A newcomer's way: what the tutorial says, typed as it stands in a new clone, works from the first line on."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from queue import Empty, Queue

import pytest
from tornado.testing import bind_unused_port

from tests.parts.clone import clone
from tests.test_docs import ROOT, blocks

PAGE = ROOT / "docs" / "tutorial" / "index.md"
INSTALLING = 600.0
ANSWERING = 60.0
ENDING = 30.0


class Terminal:
    """A command in a process group of its own, read line by line."""

    def __init__(self, command: list[str], folder: Path, **environment: str) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "SAMPLE_"))}
        self._process = subprocess.Popen(
            command,
            cwd=folder,
            env={**kept, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.lines: list[str] = []
        self._arriving: Queue[str] = Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as output:
            for line in output:
                self._arriving.put(line.rstrip("\n"))

    def until(self, pattern: str, seconds: float) -> str:
        """The next line with `pattern`."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                line = self._arriving.get(timeout=max(0.0, deadline - time.monotonic()))
            except Empty:
                raise AssertionError(f"no line with {pattern!r} came:\n" + "\n".join(self.lines[-40:])) from None
            self.lines.append(line)
            if re.search(pattern, line):
                return line

    def interrupt(self) -> int:
        """Ctrl-C; the exit status."""
        os.killpg(self._process.pid, signal.SIGINT)
        return self._process.wait(ENDING)

    def kill(self) -> None:
        """Whatever is left of it."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(ENDING)
        self._reader.join(ENDING)


def free_port() -> int:
    """The tutorial's own ports may be taken where the tests run."""
    listener, port = bind_unused_port()
    listener.close()
    return port


@pytest.fixture
def terminals() -> Iterator[list[Terminal]]:
    opened: list[Terminal] = []
    yield opened
    for terminal in opened:
        terminal.kill()


def test_the_tutorial_typed_as_it_stands(tmp_path: Path, terminals: list[Terminal]) -> None:
    folder = tmp_path / "clone"
    clone(folder)
    (command,) = [block.text.strip() for block in blocks(PAGE) if block.language == "bash"]

    server = Terminal(["bash", "-c", command], folder, SAMPLE_PORT=str(free_port()))
    terminals.append(server)
    line = server.until(r"^curl -N", INSTALLING)
    reader = Terminal(shlex.split(line), folder)
    terminals.append(reader)
    # Not at the line's beginning: into a pipe, curl writes how far it is wherever it stands.
    reader.until("event: open$", ANSWERING)
    for _ in range(2):
        reader.until("event: tick$", ANSWERING)
    assert server.interrupt() == 0
    assert not any("Traceback" in line for line in server.lines)

    (interpreter,) = [block.text.strip().removeprefix("$ ") for block in blocks(PAGE) if block.language == "console"]
    typed = "\n\n".join(block.text for block in blocks(PAGE) if block.language == "python")
    typed = typed.replace("8080", str(free_port()))
    session = subprocess.run(
        shlex.split(interpreter),
        cwd=folder,
        input=f"{typed}\nprint('the', 'last', 'line')\nexit()\n",
        capture_output=True,
        text=True,
        timeout=ANSWERING,
        check=False,
    )
    said = session.stdout + session.stderr
    assert session.returncode == 0, said
    assert "the last line" in session.stdout
    assert "Error" not in said, said
