"""Several processes behind one port: a parent that starts them, replaces those that die, and ends them all."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Child", "supervise"]

_log = logging.getLogger(__name__)

AWAITED = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGCHLD})
PAUSE = 1.0  # seconds from the start of a process that died to the start of its successor, at least
STOP_LIMIT = 30.0  # a process that drains for longer than any of its own limits hangs


@dataclass(frozen=True, slots=True)
class Child:
    """What a process is told. `number` counts from 0 and passes on to the successor of one that died.

    `lifeline` becomes readable when the process is to end: the parent says so by closing its end, also by dying.
    `ready` is to be called once the process serves.
    """

    number: int
    successor: bool
    lifeline: int
    ready: Callable[[], None]


def supervise(count: int, serve: Callable[[Child], int]) -> int:
    """Run `serve` in `count` child processes until SIGTERM or SIGINT; the exit status, 0 when all of them gave 0.

    One that dies is replaced. Where none has ever served and one fails, its status ends all. A second signal kills.
    """
    return _Supervisor(count, serve).run()


class _Supervisor:
    def __init__(self, count: int, serve: Callable[[Child], int]) -> None:
        self._serve = serve
        self._lifeline, self._held = os.pipe()
        self._readiness, self._reports = os.pipe()
        os.set_blocking(self._readiness, False)
        self._pids: dict[int, int] = {}
        self._due = dict.fromkeys(range(count), 0.0)  # number of a process that is to start -> when
        self._started: dict[int, float] = {}
        self._stopping_since: float | None = None
        self._served = False
        self._status = 0

    def run(self) -> int:
        # Blocked, they are waited for; nothing can happen between two looks. Children take the mask off.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, AWAITED)
        try:
            while self._pids or self._due:
                self._start_due(before)
                received = signal.sigtimedwait(AWAITED, self._patience())
                if received is not None and received.si_signo != signal.SIGCHLD:
                    self._stop()
                self._reap()
                self._give_up()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return self._status

    def _start_due(self, mask: set[signal.Signals | int]) -> None:
        for number, due in list(self._due.items()):
            if due <= time.monotonic():
                del self._due[number]
                self._start(number, mask)

    def _start(self, number: int, mask: set[signal.Signals | int]) -> None:
        successor = number in self._started
        self._started[number] = time.monotonic()
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid:
            self._pids[pid] = number
            _log.info("process %d runs as %d", number, pid)
            return
        status = 1
        try:
            os.close(self._held)
            os.close(self._readiness)
            for number_of_signal in AWAITED:
                signal.signal(number_of_signal, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            status = self._serve(Child(number, successor, self._lifeline, self._report_ready))
        except BaseException:
            _log.exception("process %d failed", number)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    def _report_ready(self) -> None:
        os.write(self._reports, b".")

    def _patience(self) -> float:
        """Seconds until something is due without a signal."""
        if self._stopping_since is not None:
            return max(0.1, self._stopping_since + STOP_LIMIT - time.monotonic())
        return max(0.0, min(self._due.values(), default=time.monotonic() + 60.0) - time.monotonic())

    def _reap(self) -> None:
        for pid, number in list(self._pids.items()):
            ended, wait_status = os.waitpid(pid, os.WNOHANG)
            if ended:
                del self._pids[pid]
                self._ended(number, os.waitstatus_to_exitcode(wait_status))

    def _ended(self, number: int, status: int) -> None:
        if self._stopping_since is not None:
            # The signal that ends all may reach one that is just starting and does not listen to it yet.
            clean = status in (0, -signal.SIGTERM, -signal.SIGINT)
            self._status = self._status or (0 if clean else max(1, status))
        elif status > 0 and not self._any_served():
            self._status = status
            self._stop()
        else:
            what = f"signal {-status}" if status < 0 else f"status {status}"
            _log.warning("process %d ended with %s; another one takes its place", number, what)
            self._due[number] = self._started[number] + PAUSE

    def _any_served(self) -> bool:
        with contextlib.suppress(BlockingIOError):
            self._served = self._served or bool(os.read(self._readiness, 1))
        return self._served

    def _stop(self) -> None:
        if self._stopping_since is not None:
            self._kill()
            return
        self._stopping_since = time.monotonic()
        self._due.clear()
        os.close(self._held)

    def _give_up(self) -> None:
        if self._stopping_since is not None and time.monotonic() - self._stopping_since > STOP_LIMIT:
            _log.error("%d processes have not ended within %.0f s and are killed", len(self._pids), STOP_LIMIT)
            self._kill()

    def _kill(self) -> None:
        self._status = 1
        for pid in self._pids:
            os.kill(pid, signal.SIGKILL)
