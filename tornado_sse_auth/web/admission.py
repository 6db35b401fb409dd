"""How fast new connections are let in: slowly enough that those that are open are served between them, and one at a
time."""

from __future__ import annotations

import contextlib
import selectors
import socket
import weakref
from collections.abc import Callable
from typing import Any

from tornado.ioloop import IOLoop
from tornado.iostream import IOStream

from ..clock import Clock
from .syn_filter import drop_syns

__all__ = ["DEFERRED", "Admission", "Newcomers"]

BACKLOG = 4096  # who waits to be let in; the kernel has a bound of its own (net.core.somaxconn)
DEFERRED = 1  # seconds at most for which a connection stays in the kernel that has sent nothing
MORE_AFTER = 0.004  # seconds that a turn of the loop took, for each connection more than one in the next
AT_MOST = 128  # a turn
# Seconds after which the next one comes in, whether the one before has its answer or not: however slow the answers are,
# 250 come in a second.
INTERVAL = 1 / 250
BEHIND = 0.01  # seconds that are made up for: the loop looks but once a millisecond
LOOK_AGAIN = 0.0005  # seconds until the next look whether the answer is there


class Newcomers:
    """Who asked last on a new connection, and whether the answer has begun. Who connects and asks nothing, or half of
    it, counts for nothing: two thousand of those keep nobody out."""

    def __init__(self) -> None:
        self._last: weakref.ref[IOStream] | None = None

    def asks(self, stream: IOStream) -> None:
        """A request's headers have come on `stream`."""
        if not _answered(stream):
            self._last = weakref.ref(stream)

    @property
    def waiting(self) -> bool:
        """Whether that one waits."""
        stream = None if self._last is None else self._last()
        return stream is not None and not stream.closed() and not _answered(stream)


def _answered(stream: IOStream) -> bool:
    # Tornado tells nobody when the headers of an answer go out; a test watches that this counts what was written.
    return stream._total_write_index > 0


class Admission:
    """Accepts from one listening socket as long as it is open: one connection a turn of the loop, and after a long
    turn more, so that busy clients do not keep newcomers out; the next when the one before has its answer, or in its
    turn of 250 a second.

    Tornado's own takes up to 128 a turn, and a crowd that comes back holds up everybody else by as many openings of a
    stream. The crowd waits in the kernel instead, in order of arrival, and is not slower for it.
    """

    def __init__(
        self,
        listener: socket.socket,
        admit: Callable[[socket.socket, Any], None],
        newcomers: Newcomers,
        clock: Clock,
    ) -> None:
        """`admit` is given each connection and its address."""
        listener.listen(BACKLOG)
        self._listener = listener
        # Or connections would come in one by one, and their requests all together.
        self._defer(DEFERRED)
        self._admit = admit
        self._newcomers = newcomers
        self._clock = clock
        self._closed = False
        self._waiting = selectors.DefaultSelector()
        self._waiting.register(listener, selectors.EVENT_READ)
        self._left_waiting_at: float | None = None  # when the last one was let in; None where nobody came after it
        self._next_at = 0.0  # when the next one is let in without regard to the one before
        self._pause: object | None = None
        self._listen()

    def close(self) -> None:
        """Accept no more; the socket is the caller's."""
        self._closed = True
        if self._pause is not None:
            IOLoop.current().remove_timeout(self._pause)
        else:
            IOLoop.current().remove_handler(self._listener)
        self._waiting.close()

    def undefer(self) -> None:
        """Have connections handed over that have sent nothing: new ones at once, those in the kernel in a second."""
        self._defer(0)

    def drain(self) -> None:
        """Accept everybody who waits, as far as there are descriptors. Nobody comes after them."""
        drop_syns(self._listener)
        with contextlib.suppress(OSError):
            while self._accept_one():
                pass

    def _defer(self, seconds: int) -> None:
        if hasattr(socket, "TCP_DEFER_ACCEPT") and self._listener.family in (socket.AF_INET, socket.AF_INET6):
            self._listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, seconds)

    def _listen(self) -> None:
        self._pause = None
        IOLoop.current().add_handler(self._listener, self._accept, IOLoop.READ)

    def _look_again(self) -> None:
        if self._must_wait():
            self._pause = IOLoop.current().call_later(LOOK_AGAIN, self._look_again)
        else:
            self._left_waiting_at = self._clock.monotonic()  # to wait for an answer was no turn
            self._listen()

    def _accept(self, _listener: object, _events: int) -> None:
        # Where nobody was left waiting, the time since then says nothing of a turn.
        turn = 0.0 if self._left_waiting_at is None else self._clock.monotonic() - self._left_waiting_at
        for _ in range(min(AT_MOST, 1 + int(turn / MORE_AFTER))):
            if self._must_wait():
                IOLoop.current().remove_handler(self._listener)
                self._look_again()
                break
            if not self._accept_one():
                break
            if self._closed:
                return
        self._left_waiting_at = self._clock.monotonic() if self._waiting.select(0) else None

    def _must_wait(self) -> bool:
        return self._newcomers.waiting and self._clock.monotonic() < self._next_at

    def _accept_one(self) -> bool:
        try:
            connection, address = self._listener.accept()
        except BlockingIOError:
            return False
        except ConnectionAbortedError:  # it was given up while it waited
            return True
        now = self._clock.monotonic()
        self._next_at = INTERVAL + (self._next_at if 0 <= now - self._next_at < BEHIND else now)
        self._admit(connection, address)
        return True
