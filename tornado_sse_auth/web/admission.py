"""How fast new connections are let in: slowly enough that those that are open are served between them."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable
from typing import Any

from tornado.ioloop import IOLoop

from ..clock import Clock

__all__ = ["Admission"]

BACKLOG = 4096  # who waits to be let in; the kernel has a bound of its own (net.core.somaxconn)
DEFERRED = 1  # seconds at most for which a connection stays in the kernel that has sent nothing
MORE_AFTER = 0.004  # seconds that a turn of the loop took, for each connection more than one in the next
AT_MOST = 128  # a turn


class Admission:
    """Accepts from one listening socket as long as it is open: one connection a turn of the loop, and after a long
    turn more, so that busy clients do not keep newcomers out.

    Tornado's own takes up to 128 a turn, and a crowd that comes back holds up everybody else by as many openings of a
    stream. The crowd waits in the kernel instead, in order of arrival, and is not slower for it.
    """

    def __init__(self, listener: socket.socket, admit: Callable[[socket.socket, Any], None], clock: Clock) -> None:
        """`admit` is given each connection and its address."""
        listener.listen(BACKLOG)
        if hasattr(socket, "TCP_DEFER_ACCEPT") and listener.family in (socket.AF_INET, socket.AF_INET6):
            # Or connections would come in one by one, and their requests all together.
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, DEFERRED)
        self._listener = listener
        self._admit = admit
        self._clock = clock
        self._closed = False
        self._left_waiting_at: float | None = None
        IOLoop.current().add_handler(listener, self._accept, IOLoop.READ)

    def close(self) -> None:
        """Accept no more; the socket is the caller's."""
        self._closed = True
        IOLoop.current().remove_handler(self._listener)

    def drain(self) -> None:
        """Accept everybody who waits, as far as there are descriptors."""
        with contextlib.suppress(OSError):
            while self._accept_one():
                pass

    def _accept(self, _listener: object, _events: int) -> None:
        now = self._clock.monotonic()
        # Where nobody was left waiting, the time since then says nothing of a turn.
        turn = now - self._left_waiting_at if self._left_waiting_at is not None else 0.0
        self._left_waiting_at = now
        for _ in range(min(AT_MOST, 1 + int(turn / MORE_AFTER))):
            if self._closed:
                return
            if not self._accept_one():
                self._left_waiting_at = None
                return

    def _accept_one(self) -> bool:
        try:
            connection, address = self._listener.accept()
        except BlockingIOError:
            return False
        except ConnectionAbortedError:  # it was given up while it waited
            return True
        self._admit(connection, address)
        return True
