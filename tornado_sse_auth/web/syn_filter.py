"""A listening socket whose kernel begins no more connections for a while, and keeps those that it has."""

from __future__ import annotations

import contextlib
import ctypes
import socket
import struct
import sys

__all__ = ["drop_syns", "take_syns"]

SO_ATTACH_FILTER = 26
SO_DETACH_FILTER = 27
FLAGS = 13  # where they are in a TCP header
SYN = 0x02
LOAD_BYTE, JUMP_IF_ANY, RETURN = 0x30, 0x45, 0x06
# Of the kernel's classic packet filter: code, jump if so, jump if not, operand.
INSTRUCTIONS = ((LOAD_BYTE, 0, 0, FLAGS), (JUMP_IF_ANY, 0, 1, SYN), (RETURN, 0, 0, 0), (RETURN, 0, 0, 0xFFFFFFFF))


def drop_syns(listener: socket.socket) -> None:
    """Who tries to connect from now on tries again a second later, and is refused then, the socket being closed.

    Without this, who connects between the last accept and the close is reset, which a proxy takes for a request that
    broke off. Does nothing where the system is not Linux.
    """
    if not _has_syns(listener):
        return
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *instruction) for instruction in INSTRUCTIONS))
    with contextlib.suppress(OSError):  # a sandbox may not have it
        listener.setsockopt(
            socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HL", len(INSTRUCTIONS), ctypes.addressof(program))
        )


def take_syns(listener: socket.socket) -> None:
    """Begin connections again: for whoever has the socket when this process has closed it. Those that were forked
    share one, and systemd keeps what it hands out."""
    if _has_syns(listener):
        with contextlib.suppress(OSError):  # there was no filter
            listener.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)


def _has_syns(listener: socket.socket) -> bool:
    return sys.platform == "linux" and listener.family in (socket.AF_INET, socket.AF_INET6)
