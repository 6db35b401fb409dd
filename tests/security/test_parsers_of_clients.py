"""Random metadata, redirect addresses, document addresses and forms of MCP clients: read as documented, or refused."""

from __future__ import annotations

import ipaddress
import json
import re
from typing import Any
from urllib.parse import parse_qs, unquote, urlencode, urlsplit

from hypothesis import example, given
from hypothesis import strategies as st

from tests.security.drawn import JSON, raises
from tornado_sse_auth.authorization_server.client_authentication import _basic
from tornado_sse_auth.authorization_server.client_metadata import read_client_metadata
from tornado_sse_auth.authorization_server.endpoint import EndpointRequest, read_form
from tornado_sse_auth.authorization_server.metadata_documents import UnacceptableDocument, check_document_url, lifetime
from tornado_sse_auth.authorization_server.public_network import is_public
from tornado_sse_auth.authorization_server.redirect_uris import check_redirect_uri, is_loopback, is_registered
from tornado_sse_auth.errors import AuthError

PIECES = ["https://", "http://", "app.example", "127.0.0.1", "[::1]", "localhost", "cursor://", "javascript:", ":8787"]
PIECES += ["/", "//", "\\", "@", "#", "?", "..", ".", "%2e", "%2f", "*", ":", "é", "\n", " ", "a", "callback", "data:"]
ADDRESS = st.lists(st.sampled_from(PIECES), min_size=1, max_size=7).map("".join) | st.text(max_size=20)
MEMBERS = ["redirect_uris", "token_endpoint_auth_method", "grant_types", "response_types", "client_name", "client_uri"]
MEMBERS += ["logo_uri", "tos_uri", "policy_uri", "scope", "contacts", "client_id", "jwks", "x"]
METADATA = st.dictionaries(st.sampled_from(MEMBERS), JSON | ADDRESS | st.lists(ADDRESS, max_size=3))


@given(METADATA, st.lists(ADDRESS, min_size=1, max_size=3), st.text(max_size=40))
@example({}, ["http://127.0.0.1/callback"], "\u202egnp.exe\x00")
def test_client_metadata(document: dict[str, Any], uris: list[str], name: str) -> None:
    """SEC-30, SEC-31: what is taken is canonical (read again it is the same), its name has nothing that changes how
    the rest of a page looks, and every redirect address is one that may be registered."""
    described = {"redirect_uris": uris, "client_name": name, **document}
    metadata = raises(AuthError, lambda: read_client_metadata(described, default_auth_method="none"))
    if metadata is not None:
        again = read_client_metadata(json.loads(json.dumps(metadata.document())), default_auth_method="none")
        assert again == metadata
        assert metadata.name.isprintable()
        assert not re.search("[\u200e\u200f\u202a-\u202e\u2066-\u2069]", metadata.name)
        for uri in metadata.redirect_uris:
            check_redirect_uri(uri, public=metadata.auth_method == "none")
        assert all(page.startswith(("https://", "http://")) for page in metadata.pages.values())


@given(ADDRESS, ADDRESS, st.integers(0, 70_000))
@example("http://127.0.0.1/callback", "http://127.0.0.1:1/callback", 1)
@example("http://localhost:80@evil.example/", "http://localhost/", 1)
def test_redirect_address(uri: str, other: str, port: int) -> None:
    """SEC-30: no address that a browser opens itself, plain beyond loopback, or reads in another way; another one is
    never taken for it, but for the port on loopback."""
    if raises(AuthError, lambda: check_redirect_uri(uri, public=True) or True):
        parts = urlsplit(uri)
        assert uri.isascii()
        assert uri.isprintable()
        assert parts.scheme not in ("javascript", "data", "file", "blob", "vbscript", "about", "ws", "wss")
        assert parts.scheme != "http" or parts.hostname in ("127.0.0.1", "::1", "localhost")
        assert "@" not in parts.netloc
        assert "#" not in uri
        assert ".." not in unquote(parts.path).replace("\\", "/").split("/")
        assert is_registered(uri, [uri])
        if is_registered(other, [uri]) and other != uri:
            assert is_loopback(uri)
            assert is_loopback(other)
            ours, theirs = urlsplit(uri), urlsplit(other)
            assert (ours.path, ours.query, ours.hostname) == (theirs.path, theirs.query, theirs.hostname)
        if is_loopback(uri):
            moved = f"http://{parts.netloc.rpartition(':')[0] if parts.port is not None else parts.netloc}:{port}"
            rest = uri[len("http://") + len(parts.netloc) :]
            assert is_registered(moved + rest, [uri]) == (port <= 65_535)


@given(ADDRESS | ADDRESS.map("https://app.example/".__add__))
@example("https://app.example/a/%2e%2e/b")
@example("https://app.example\\@evil.example/a")
@example("https://app.example:x/a")
def test_document_address(url: str) -> None:
    """SEC-45: https with a path, as it stands, for every parser."""

    def acceptable() -> bool:
        check_document_url(url)
        return True

    if raises(UnacceptableDocument, acceptable):
        parts = urlsplit(url)
        assert (parts.scheme, parts.username, parts.fragment) == ("https", None, "")
        assert len(parts.path) > 1
        assert not {".", ".."} & set(unquote(parts.path).split("/"))
        assert url.isascii()


@given(st.ip_addresses() | st.integers(0, 2**32 - 1).map(ipaddress.IPv4Address))
@example(ipaddress.ip_address("fec0::1"))
@example(ipaddress.ip_address("64:ff9b::7f00:1"))
def test_public_address(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    """SEC-44: never an address of an inner network, nor one that carries such an address inside."""
    if is_public(str(address)):
        kinds = ("private", "loopback", "link_local", "multicast", "reserved", "unspecified", "site_local")
        assert not [kind for kind in kinds if getattr(address, f"is_{kind}", False)]
        assert not [kind for kind in ("ipv4_mapped", "sixtofour", "teredo") if getattr(address, kind, None)]


FIELDS = st.dictionaries(st.text(max_size=5), st.text(max_size=8))


@given(st.binary(max_size=60) | FIELDS.map(lambda fields: urlencode(fields).encode()))
@example(b"a=1&a=2")
@example(b"a=b&" * 60)
@example(b"%ff=%fe")
def test_form(body: bytes) -> None:
    """SEC-22, SEC-41: each field once, as the standard library reads it, or the documented error."""
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    request = EndpointRequest(method="POST", headers=headers, body=body, remote="10.0.0.1")
    form = raises(AuthError, lambda: read_form(request))
    if form is not None:
        # A parameter without a value is as good as none (RFC 6749, section 3.1).
        assert {name: [value] for name, value in form.items()} == parse_qs(body.decode())


@given(st.text(st.characters(max_codepoint=255, exclude_categories=("Cc",)), max_size=40), st.text(max_size=40))
@example("Og==", "9" * 5000)
@example("/////w==", "99999, no-store")
def test_basic_and_cache_control(header: str, directives: str) -> None:
    """SEC-41, SEC-45: a client's credentials, or 401; a time to keep a document, within its bounds."""
    for value in (header, f"Basic {header}"):
        found = raises(AuthError, lambda: _basic(value))  # noqa: B023 - called at once
        assert found is None or found[0]
    assert 0 <= lifetime(directives) <= 86_400
    assert 0 <= lifetime(f"max-age={directives}") <= 86_400
