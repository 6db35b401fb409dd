"""A server run as a child process: started means it answers, ended means it is gone.

Every method blocks for a bounded time; from a coroutine call the slow ones through `asyncio.to_thread`.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

_handed_out: set[int] = set()


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on; never the same one twice in a test run."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        if port not in _handed_out:
            _handed_out.add(port)
            return port


class ServerProcess:
    """A child in its own process group, whose output is kept for assertions and messages."""

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        ready: Callable[[ServerProcess], None],
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
    ) -> None:
        """`ready` waits until the server answers and raises where it does not; `environment` is added to ours."""
        self.name = name
        self.command = [str(word) for word in command]
        self._ready = ready
        self._environment = {**os.environ, **(environment or {})}
        self._folder = folder
        self._stop_signal = stop_signal
        self.absences: list[tuple[float, float]] = []
        """When it was frozen, or killed and not ready again; epoch seconds."""
        self._gone_at: float | None = None
        self._lines: list[str] = []
        self._changed = threading.Condition()
        self._child: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """Process id of the running child."""
        return self._running().pid

    @property
    def alive(self) -> bool:
        """Whether the child runs."""
        return self._child is not None and self._child.poll() is None

    @property
    def returncode(self) -> int | None:
        """Exit status of the last child; None while it runs."""
        return None if self._child is None else self._child.poll()

    @property
    def output(self) -> str:
        """All that was written to standard output and error since the first start."""
        with self._changed:
            return "".join(self._lines)

    def start(self) -> None:
        """Start the child and wait until it answers. Raises AssertionError, with the output, where it does not."""
        if self.alive:
            raise AssertionError(f"{self.name} runs already")
        self._child = subprocess.Popen(
            self.command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=self._environment,
            cwd=self._folder,
            text=True,
            errors="replace",
            process_group=0,
        )
        self._reader = threading.Thread(target=self._read, args=(self._child,), name=f"{self.name} output", daemon=True)
        self._reader.start()
        try:
            self._ready(self)
        except BaseException:
            self.kill()
            raise
        if self._gone_at is not None:
            self.absences.append((self._gone_at, time.time()))
            self._gone_at = None

    def stop(self, timeout: float = 10.0) -> int | None:
        """Send the stop signal, wait `timeout` seconds, then kill. Gives the exit status; a second call does nothing.

        A frozen child is killed at once: it could not take the signal.
        """
        if self._child is None:
            return None
        if self.alive:
            self.signal(self._stop_signal)
            with suppress(subprocess.TimeoutExpired):
                self._child.wait(timeout)
        self.kill()
        return self._child.returncode

    def kill(self) -> None:
        """SIGKILL to the whole process group, and wait for its end."""
        if self._child is None:
            return
        self._gone_at = self._gone_at or time.time()
        with suppress(ProcessLookupError):
            os.killpg(self._child.pid, signal.SIGKILL)
        self._child.wait(10)
        if self._reader is not None:
            self._reader.join(10)

    def restart(self) -> None:
        """End the child, if it runs, and start it again with the same command."""
        self.stop()
        self.start()

    def signal(self, number: signal.Signals) -> None:
        """Send one signal to the process group."""
        os.killpg(self._running().pid, number)

    def wait(self, timeout: float) -> int:
        """Wait for the child to end by itself; gives its exit status. Raises AssertionError after `timeout` seconds."""
        try:
            status = self._running().wait(timeout)
        except subprocess.TimeoutExpired:
            raise self.failure(f"still runs after {timeout} s") from None
        if self._reader is not None:
            self._reader.join(10)
        return status

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Freeze the process group: it holds its sockets and answers nothing (SIGSTOP, then SIGCONT)."""
        begun = time.time()
        self.signal(signal.SIGSTOP)
        # On a busy machine its other threads go on until the one that takes the signal has had its turn.
        self.wait_until(self._stands_still, "does not stop")
        try:
            yield
        finally:
            if self.alive:
                self.signal(signal.SIGCONT)
            self.absences.append((begun, time.time()))

    def _stands_still(self) -> bool:
        try:
            states = [
                task.read_text().rpartition(")")[2].split()[0] for task in Path(f"/proc/{self.pid}/task").glob("*/stat")
            ]
        except OSError:  # a thread that ended while we looked
            return False
        return set(states) <= {"T"}

    def wait_for_line(self, pattern: str, timeout: float = 20.0) -> re.Match[str]:
        """Wait until one line of the output (also one written before) matches; raises AssertionError otherwise."""
        regex = re.compile(pattern)
        deadline = time.monotonic() + timeout
        seen = 0
        with self._changed:
            while True:
                for line in self._lines[seen:]:
                    if found := regex.search(line):
                        return found
                seen = len(self._lines)
                remaining = deadline - time.monotonic()
                ended = self._reader is None or not self._reader.is_alive()
                if ended or remaining <= 0:
                    break
                self._changed.wait(min(remaining, 0.5))
        raise self.failure(f"no line matches {pattern!r} within {timeout} s")

    def wait_for_port(self, port: int, timeout: float = 20.0) -> None:
        """Wait until 127.0.0.1:`port` takes a connection; raises AssertionError otherwise."""

        def connects() -> bool:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                return True
            return False

        self.wait_until(connects, f"port {port} does not answer", timeout)

    def wait_until(self, condition: Callable[[], bool], otherwise: str, timeout: float = 20.0) -> None:
        """Ask `condition` each 50 ms; raises AssertionError with `otherwise` when time is up or the child has ended."""
        deadline = time.monotonic() + timeout
        while not condition():
            if not self.alive:
                raise self.failure(f"{otherwise}: ended with status {self.returncode}")
            if time.monotonic() > deadline:
                raise self.failure(f"{otherwise} within {timeout} s")
            time.sleep(0.05)

    def failure(self, text: str) -> AssertionError:
        """An assertion error that shows the end of the output."""
        return AssertionError(f"{self.name}: {text}\n{self.output[-4000:]}")

    def _running(self) -> subprocess.Popen[str]:
        if self._child is None or self._child.poll() is not None:
            raise self.failure("does not run")
        return self._child

    def _read(self, child: subprocess.Popen[str]) -> None:
        assert child.stdout is not None
        with child.stdout:
            for line in child.stdout:
                with self._changed:
                    self._lines.append(line)
                    self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()
