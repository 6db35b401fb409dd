"""The bytes of an event, against a parser that knows nothing of the encoder."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.streams.sse import Parser, Received
from tornado_sse_auth.errors import RequestTooLargeError
from tornado_sse_auth.streams.event import (
    chunk,
    encode,
    encode_comment,
    encode_retry,
    parse_last_event_id,
    payload,
)

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
NASTY = st.text(st.sampled_from("\r\n\0 :adetvin\u2028\u2029\x85\x0b\ufeff\U0001f600"))
FIELD = (TEXT | NASTY).filter(lambda text: not set(text) & set("\r\n\0"))


@given(data=TEXT | NASTY, event=FIELD, event_id=st.none() | FIELD, cut=st.integers(0, 200))
def test_a_parser_gives_back_exactly_one_equal_event(data: str, event: str, event_id: str | None, cut: int) -> None:
    """SEC-47: line breaks of all three kinds, leading spaces, NUL, colons, anything."""
    parser = Parser()
    wire = encode(data, event=event, id=event_id)
    events = parser.feed(wire[:cut]) + parser.feed(wire[cut:]) + parser.feed(encode("next"))
    expected = re.sub("\r\n|\r", "\n", data)
    assert events == [
        Received(event or "message", expected, event_id or ""),
        Received("message", "next", event_id or ""),
    ]
    assert parser.retries == []
    assert parser.comments == []


@given(TEXT | NASTY)
def test_a_comment_never_becomes_an_event(text: str) -> None:
    """SEC-47."""
    parser = Parser()
    assert parser.feed(encode_comment(text) + encode("next")) == [Received("message", "next", "")]
    assert parser.comments == re.split("\r\n|\r|\n", text)


@pytest.mark.parametrize("bad", ["a\nb", "a\rb", "a\r\nb", "a\0b", "a\ud800"])
def test_a_field_that_could_break_out_is_refused(bad: str) -> None:
    """SEC-47."""
    with pytest.raises(ValueError):
        encode("x", event=bad)
    with pytest.raises(ValueError):
        encode("x", id=bad)


def test_what_has_no_bytes_is_refused() -> None:
    """SEC-47: a time to wait is a number, so that no text gets into its line."""
    for bad in ("\udc00", {1, 2}, float("nan")):
        with pytest.raises(ValueError):
            encode(bad)
    with pytest.raises(ValueError):
        encode_comment("\udc00")
    for seconds in (-1, 86_401, float("inf"), float("nan")):
        with pytest.raises(ValueError):
            encode_retry(seconds)
    for text in ("1\ndata: x", "1\rdata: x", "1\r\n", "1\0", " 1", "\ud800"):
        with pytest.raises(TypeError):
            encode_retry(text)  # type: ignore[arg-type]


def test_the_event_name_is_always_written_and_json_is_compact() -> None:
    assert encode({"a": [1, None]}) == b'event: message\ndata: {"a":[1,null]}\n\n'
    assert encode(" x", event="e", id="7") == b"id: 7\nevent: e\ndata:  x\n\n"
    assert encode_retry(1.2345) == b"retry: 1234\n\n"


def test_an_event_is_at_most_one_mebibyte() -> None:
    size = 1024 * 1024
    lines = "\n" * size
    assert Parser().feed(encode(lines))[0].data == lines
    big = {"text": "é" * 100_000}
    assert json.loads(Parser().feed(encode(big))[0].data) == big
    for too_large in ("x" * (size + 1), "é" * (size // 2 + 1), {"text": "x" * size}):
        with pytest.raises(RequestTooLargeError):
            encode(too_large)


@given(st.binary(min_size=1, max_size=70_000))
def test_a_chunk_holds_its_payload(content: bytes) -> None:
    ready = chunk(content)
    size, _, rest = ready.partition(b"\r\n")
    assert int(size, 16) == len(content)
    assert rest == content + b"\r\n"
    assert payload(ready) == content


@pytest.mark.parametrize(
    ("value", "number"),
    [
        ("1", 1),
        ("1700000000000000", 1_700_000_000_000_000),
        ("9223372036854775807", 2**63 - 1),
        ("9223372036854775808", None),
        ("99999999999999999999", None),
        ("1" * 21, None),
        ("0", None),
        ("", None),
        ("-1", None),
        ("+1", None),
        (" 1", None),
        ("1\x00", None),
        ("\u0661", None),
        ("1e3", None),
        ("x" * 1_000_000, None),
    ],
)
def test_last_event_id_is_a_number_of_the_log_or_unknown(value: str, number: int | None) -> None:
    """SEC-48."""
    assert parse_last_event_id(value) == number
