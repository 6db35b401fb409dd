"""Random credentials, headers, bodies and addresses: what the documents say, and no other error."""

from __future__ import annotations

import ipaddress
import json
import re
from contextlib import suppress
from http.cookies import CookieError, SimpleCookie

from hypothesis import example, given
from hypothesis import strategies as st
from tornado.httputil import HTTPHeaders, HTTPServerRequest, RequestStartLine

from tests.parts.sse_client import EventStreamParser
from tests.security.drawn import HEADER, JSON, NASTY_TEXT, OURS, raises
from tornado_sse_auth.errors import (
    AuthenticationRequiredError,
    AuthError,
    InsufficientScopeError,
    InvalidRequestError,
    InvalidTokenError,
)
from tornado_sse_auth.identity import CredentialKind
from tornado_sse_auth.oauth.http import parse_json
from tornado_sse_auth.oauth.sign_in import Callback, safe_return_to
from tornado_sse_auth.options import Options
from tornado_sse_auth.sessions.credentials import read_bearer, read_cookie
from tornado_sse_auth.streams.event import encode, parse_last_event_id
from tornado_sse_auth.web.guards import RequestGuard
from tornado_sse_auth.web.json_body import read_json
from tornado_sse_auth.web.responses import error_answer

# -- credentials ------------------------------------------------------------------------------------------------------


@given(st.lists(HEADER | HEADER.map("Bearer ".__add__) | OURS.map("Bearer ".__add__), min_size=1, max_size=2))
@example(["bearer  " + "A" * 43 + "  "])
@example(["Bearer a,Bearer b"])
def test_bearer(values: list[str]) -> None:
    """SEC-14: one token exactly as it stood, none, or 400."""
    found = raises(InvalidRequestError, lambda: read_bearer(values))
    if found is not None:
        scheme, _, token = values[0].partition(" ")
        assert (len(values), scheme.lower(), token.strip(" ")) == (1, "bearer", found.secret.reveal())
        assert found.digest == found.secret.digest()
        assert found.kind is CredentialKind.BEARER
        assert found.ours == (re.fullmatch(r"[\w-]{43}", token.strip(" "), re.ASCII) is not None)


@given(HEADER)
@example("__Host-session=" + "A" * 43 + "; __Host-session=" + "B" * 43)
@example("x__Host-session=" + "A" * 43)
@example("__Host-session =" + "A" * 43)
@example('__Host-session="' + "A" * 43 + '"')
def test_cookie(header: str) -> None:
    """SEC-14, SEC-23: a cookie of that very name, once, or none, or the documented errors."""
    found = raises((InvalidRequestError, InvalidTokenError), lambda: read_cookie(header, "__Host-session"))
    if found is not None:
        pairs = [pair.partition("=") for pair in header.split(";")]
        values = {value.strip(' \t"') for name, _, value in pairs if name.strip(" \t") == "__Host-session"}
        assert values == {found.secret.reveal()}


@given(st.dictionaries(st.from_regex(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,12}", fullmatch=True), OURS, max_size=6), OURS)
def test_cookies_as_browsers_send_them(others: dict[str, str], ours: str) -> None:
    """SEC-23: among others, ours is found by us where the standard library finds it."""
    others.pop("__Host-session", None)
    pairs = [f"{name}={value}" for name, value in others.items()]
    pairs.insert(len(pairs) // 2, f"__Host-session={ours}")
    header = "; ".join(pairs)
    found = read_cookie(header, "__Host-session")
    assert found is not None
    assert found.secret.reveal() == ours
    parsed: SimpleCookie = SimpleCookie()
    with suppress(CookieError):  # it gives up at names that browsers send
        parsed.load(header)
    if "__Host-session" in parsed:
        assert parsed["__Host-session"].value == ours
    without = "; ".join(pair for pair in pairs if not pair.startswith("__Host-session="))
    assert read_cookie(without, "__Host-session") is None


# -- streams ----------------------------------------------------------------------------------------------------------


@given(HEADER | st.text(st.sampled_from("0123456789-+_ e.x"), max_size=25) | st.integers().map(str))
@example("0")
@example("9223372036854775808")
@example("1" * 5000)
@example("²")
def test_last_event_id(value: str) -> None:
    """SEC-48: a number of the log, or unknown."""
    number = parse_last_event_id(value)
    assert number is None or (0 < number < 2**63 and int(value) == number)


@given(st.lists(st.tuples(NASTY_TEXT, NASTY_TEXT, st.none() | NASTY_TEXT), max_size=4), st.integers(1, 7))
@example([("x\r\rdata: y\n\n", "a", "1"), ("", "\ufeffb", None), (" \n:", "", "")], 1)
def test_a_whole_stream_comes_back_event_by_event(events: list[tuple[str, str, str | None]], step: int) -> None:
    """SEC-47, SEC-12: several events in one stream, cut anywhere: each is one, and none speaks for another."""
    sent, wire, last = [], b"", ""
    for data, name, number in events:
        written = raises(ValueError, lambda: encode(data, event=name, id=number))  # noqa: B023 - called at once
        if written is not None:
            wire += written
            last = last if number is None else number
            sent.append((name or "message", re.sub("\r\n?", "\n", data), last))
    parser = EventStreamParser()
    received = [event for at in range(0, len(wire), step) for event in parser.feed(wire[at : at + step])]
    assert [(event.event, event.data, event.id) for event in received] == sent


# -- requests and answers ---------------------------------------------------------------------------------------------

HOP = (
    st.ip_addresses().map(str)
    | st.sampled_from(["10.0.0.1", "10.9.9.9", "unknown", "_hidden", "", "1.2.3.4:80"])
    | HEADER
)


@given(st.lists(st.lists(HOP, max_size=4).map(",".join), max_size=3), HEADER, st.ip_addresses(v=4).map(str))
@example(["6.6.6.6, 10.0.0.1"], "", "10.0.0.2")
def test_forwarded_header(values: list[str], request_id: str, peer: str) -> None:
    """SEC-10, SEC-18: the address is the peer's, or one of the header's with trusted proxies alone on its right; the
    request id is short and printable."""
    guard = RequestGuard(
        Options(public_url="https://app.example", trusted_proxies=(ipaddress.ip_network("10.0.0.0/8"),))
    )
    headers = HTTPHeaders({"Host": "app.example", "X-Request-ID": request_id})
    for value in values:
        if value.strip():  # Tornado refuses the request otherwise
            headers.add("X-Forwarded-For", value.strip())
    request = HTTPServerRequest(start_line=RequestStartLine("GET", "/", "HTTP/1.1"), headers=headers)
    request.remote_ip = peer
    info = guard.describe(request)
    assert info.request_id.isascii()
    assert info.request_id.isprintable()
    assert 0 < len(info.request_id) <= 128
    hops = [hop.strip() for value in headers.get_list("X-Forwarded-For") for hop in value.split(",")]
    chain = [*hops, peer]
    if not peer.startswith("10."):
        assert info.remote == peer
    else:
        nearest = len(chain) - 1 - chain[::-1].index(info.remote)
        assert all(ipaddress.ip_address(hop) in ipaddress.ip_network("10.0.0.0/8") for hop in chain[nearest + 1 :])


def browser_origin(reference: str) -> str:
    """Where a browser goes from https://app.example by this reference (WHATWG URL, the parts that matter here)."""
    text = re.sub("[\t\n\r]", "", reference.strip("".join(map(chr, range(33))))).replace("\\", "/")
    if re.match(
        r"(?i)https?:(?!//)", text
    ):  # a special scheme without slashes: relative to the base of the same scheme
        return "https://app.example" if text.lower().startswith("https:") else "elsewhere"
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", text) or text.startswith("//"):
        return "elsewhere"
    return "https://app.example"


@given(
    st.lists(
        st.sampled_from([*"/\\.%:@?#&=; \t\r\n\0-_~ae0é", "//", "..", "%2f", "%5c", "%09", "%0d", "%25"]), max_size=14
    ).map("".join)
)
def test_return_to(text: str) -> None:
    """SEC-24: a browser stays, also when a proxy or a page decodes the path once more; unit tests ask Node's parser."""
    kept = safe_return_to(text)
    assert kept == "/" or kept == text
    assert kept.startswith("/")
    assert browser_origin(kept) == "https://app.example"
    path = re.sub("%([0-9a-fA-F]{2})", lambda found: chr(int(found[1], 16)), re.split("[?#]", kept)[0])
    assert browser_origin(path) == "https://app.example"
    assert not set(path) & set("\r\n\\\0")


@given(
    st.dictionaries(st.sampled_from(["state", "code", "error", "iss", "x"]), st.lists(st.text(max_size=6), max_size=2))
)
def test_callback(arguments: dict[str, list[str]]) -> None:
    """SEC-22: a code or an error with a state, each once, or 400; never a code of another issuer."""
    callback = raises(InvalidRequestError, lambda: Callback.read(arguments))
    if callback is not None:
        assert all(len(arguments.get(name, ())) <= 1 for name in ("state", "code", "error", "iss"))
        code = raises(AuthError, lambda: callback.accept(issuer="https://id.example", iss_parameter=True))
        assert code is None or arguments["iss"] == ["https://id.example"]


@given(st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode()))
@example(b"[" * 65 + b"]" * 65)
@example(b"[" * 100_000)
@example(b"9" * 5000)
@example(b"1e999")
@example(b'"\\ud800"')
def test_json_of_a_client_and_of_a_provider(body: bytes) -> None:
    """SEC-53: what the standard library reads and JSON allows, or the documented error."""
    ours = raises(InvalidRequestError, lambda: (read_json(body, max_depth=64),))
    if ours is not None:
        assert ours[0] == json.loads(body.decode())
    raises(ValueError, lambda: parse_json(body))


@given(NASTY_TEXT, st.text(max_size=30), st.frozensets(st.text(max_size=8), max_size=3))
@example('a"b\\c', "\r\nX: y", frozenset({'x"'}))
def test_challenge(message: str, request_id: str, scopes: frozenset[str]) -> None:
    """SEC-13, SEC-58: whatever stands in an error, its challenge is one header of quoted strings (RFC 9110), and its
    body is JSON that says the same."""
    for error in (InvalidTokenError(message), InsufficientScopeError(message, required=scopes)):
        answer = error_answer(
            error, request_id=request_id, resource_metadata="https://app.example/x", scopes=scopes, presented=True
        )
        challenge = answer.headers["WWW-Authenticate"]
        assert re.fullmatch(r'Bearer (?:[a-z_]+="(?:[ !#-\[\]-~]|\\["\\])*"(?:, |$))+', challenge)
        assert json.loads(answer.body)["error_description"] == message
    assert isinstance(error, AuthError)
    assert issubclass(InvalidTokenError, AuthenticationRequiredError)
