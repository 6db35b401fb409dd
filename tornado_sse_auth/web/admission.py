"""How fast new connections are let in: slowly enough that those that are open are served between them, and few at a
time."""

from __future__ import annotations

import contextlib
import selectors
import socket
from collections import deque
from collections.abc import Callable
from typing import Any

from tornado.ioloop import IOLoop
from tornado.iostream import IOStream

from ..clock import Clock
from .syn_filter import drop_syns

__all__ = ["DEFERRED", "Admission", "Unanswered"]

BACKLOG = 4096  # who waits to be let in; the kernel has a bound of its own (net.core.somaxconn)
DEFERRED = 1  # seconds at most for which a connection stays in the kernel that has sent nothing
# Seconds after which the next is let in, however busy the process is: 400 come in a second.
EACH = 0.0025
AT_MOST = 128  # a turn, after one that took long
LOOK_AGAIN = 0.0005  # seconds until the next look whether all have their answers


class Unanswered:
    """Who has asked something just now and waits for the first byte of the answer, on an old connection or a new one.

    Whose answer takes longer than `EACH` waits for something else than this process, and no longer counts. Who connects
    and asks nothing, or half of it, counts neither: two thousand of those keep nobody out.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._waiting: deque[tuple[float, IOStream, int]] = deque()

    def asks(self, stream: IOStream) -> None:
        """A request's headers have come on `stream`."""
        self._forget()
        # Tornado tells nobody when the headers of an answer go out; a test watches that this counts what was written.
        self._waiting.append((self._clock.monotonic() + EACH, stream, stream._total_write_index))

    def __bool__(self) -> bool:
        self._forget()
        return bool(self._waiting)

    def _forget(self) -> None:
        now = self._clock.monotonic()
        while self._waiting:
            until, stream, written = self._waiting[0]
            if now < until and not stream.closed() and stream._total_write_index == written:
                return
            self._waiting.popleft()


class Admission:
    """Accepts from one listening socket as long as it is open: one connection a turn of the loop, when nobody waits for
    an answer; and one for each `EACH` seconds all the same, so that busy clients do not keep newcomers out.

    Tornado's own takes up to 128 a turn, and a crowd that comes back holds up everybody else by as many openings of a
    stream. The crowd waits in the kernel instead, in order of arrival.
    """

    def __init__(
        self,
        listener: socket.socket,
        admit: Callable[[socket.socket, Any], None],
        unanswered: Unanswered,
        clock: Clock,
    ) -> None:
        """`admit` is given each connection and its address."""
        listener.listen(BACKLOG)
        self._listener = listener
        # Or connections would come in one by one, and their requests all together.
        self._defer(DEFERRED)
        self._admit = admit
        self._unanswered = unanswered
        self._clock = clock
        self._closed = False
        self._waiting = selectors.DefaultSelector()
        self._waiting.register(listener, selectors.EVENT_READ)
        self._let_in_at: float | None = None  # the last one; None where it left nobody waiting
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

    def _owed(self) -> int:
        """How many have waited long enough."""
        now = self._clock.monotonic()
        if self._let_in_at is None:
            self._let_in_at = now
        return min(AT_MOST, int((now - self._let_in_at) / EACH))

    def _look_again(self) -> None:
        if self._unanswered and not self._owed():
            self._pause = IOLoop.current().call_later(LOOK_AGAIN, self._look_again)
        else:
            self._listen()

    def _accept(self, _listener: object, _events: int) -> None:
        owed = self._owed()
        if self._unanswered and not owed:
            IOLoop.current().remove_handler(self._listener)
            self._look_again()
            return
        for _ in range(max(1, owed)):
            if not self._accept_one():
                break
            if self._closed:
                return
        self._let_in_at = self._clock.monotonic() if self._waiting.select(0) else None

    def _accept_one(self) -> bool:
        try:
            connection, address = self._listener.accept()
        except BlockingIOError:
            return False
        except ConnectionAbortedError:  # it was given up while it waited
            return True
        self._admit(connection, address)
        return True
