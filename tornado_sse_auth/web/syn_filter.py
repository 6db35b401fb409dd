"""A listening socket whose kernel begins no more connections, and keeps those that it has."""

from __future__ import annotations

import contextlib
import ctypes
import socket
import struct
import sys

__all__ = ["drop_syns"]

SO_ATTACH_FILTER = 26
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
    if sys.platform != "linux" or listener.family not in (socket.AF_INET, socket.AF_INET6):
        return
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *instruction) for instruction in INSTRUCTIONS))
    with contextlib.suppress(OSError):  # a sandbox may not have it
        listener.setsockopt(
            socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HL", len(INSTRUCTIONS), ctypes.addressof(program))
        )
