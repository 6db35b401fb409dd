"""Server-Sent Events as bytes (WHATWG HTML, section 9.2). Pure: what cannot be written raises before a byte exists."""

from __future__ import annotations

import re
from typing import Any

from ..events.base import event_text

__all__ = ["HEARTBEAT", "chunk", "encode", "encode_comment", "encode_retry", "parse_last_event_id", "payload"]

# The three line ends that the standard knows; str.splitlines would also break at eight others.
_LINE_END = re.compile(r"\r\n|\r|\n")
_FORBIDDEN = re.compile("[\r\n\0\ud800-\udfff]")
_NUMBER = re.compile(r"[0-9]{1,20}")
_MAX_NUMBER = 2**63 - 1  # what a store can compare


def encode(data: Any, *, event: str = "message", id: str | None = None) -> bytes:  # noqa: A002 - the field's name
    """One event. `data`: a string is written as it is, anything else becomes compact JSON.

    Raises `ValueError` where `event` or `id` has a line break, NUL or lone surrogate, or `data` a lone surrogate or
    something that JSON has no word for; `RequestTooLargeError` above 1 MiB of data.
    """
    text = event_text(data, event)
    if "\n" in text or "\r" in text:
        text = "\ndata: ".join(_LINE_END.split(text))
    # An empty event name means `message` to every parser, so that is what is written.
    lines = f"event: {event or 'message'}\ndata: {text}\n\n"
    if id is not None:
        if _FORBIDDEN.search(id):
            raise ValueError("id has no line break, no NUL and no lone surrogate")
        lines = f"id: {id}\n{lines}"
    return lines.encode()


def encode_comment(text: str = "") -> bytes:
    """A comment, which clients ignore; each line becomes a comment line. Raises `ValueError` for a lone surrogate."""
    lines = [f": {line}\n" if line else ":\n" for line in _LINE_END.split(text)]
    return "".join([*lines, "\n"]).encode()


def encode_retry(seconds: float) -> bytes:
    """How long a client waits before it comes back. Raises `ValueError` below zero or above a day."""
    if not 0 <= seconds <= 86_400:
        raise ValueError("retry is between 0 and 86400 seconds")
    return b"retry: %d\n\n" % round(seconds * 1000)


def chunk(content: bytes) -> bytes:
    """`content`, not empty, as a chunk of the chunked transfer coding (RFC 9112, section 7.1)."""
    return b"%x\r\n%b\r\n" % (len(content), content)


def payload(ready: bytes) -> bytes:
    """What `chunk` was given: for the HTTP/1.0 client, which knows no chunks."""
    return ready[ready.index(b"\n") + 1 : -2]


def parse_last_event_id(value: str) -> int | None:
    """The number in a Last-Event-ID header, or None where it is none that an event log gives out."""
    if _NUMBER.fullmatch(value) is None:
        return None
    number = int(value)
    return number if 0 < number <= _MAX_NUMBER else None


HEARTBEAT = chunk(encode_comment())
