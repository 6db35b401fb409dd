"""A sign-in under way, without a provider."""

from __future__ import annotations

import json
import subprocess
from urllib.parse import urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.parts.node import find_node
from tests.parts.require import require
from tornado_sse_auth.errors import AccessDeniedError, AuthError, InvalidRequestError, ProviderUnavailableError
from tornado_sse_auth.identity import Secret
from tornado_sse_auth.oauth.sign_in import Callback, SignInAttempt, SignInRequest, read_scope, safe_return_to

ISSUER = "https://provider.example"
BROWSER = Secret("browser")


def attempt() -> SignInAttempt:
    return SignInAttempt.begin(
        browser=BROWSER, return_to="/a?b=c", scopes=frozenset({"openid"}), now=1000.0, reauth="s"
    )


def test_an_attempt_survives_its_record() -> None:
    begun = attempt()
    assert SignInAttempt.from_record(json.loads(json.dumps(begun.to_record()))) == begun
    assert begun.verifier.reveal() not in repr(begun)


def test_every_attempt_is_different() -> None:
    first, second = attempt(), attempt()
    assert first.state != second.state
    assert first.nonce != second.nonce
    assert first.challenge != second.challenge


def test_challenge_of_the_rfc() -> None:
    """RFC 7636, appendix B."""
    record = attempt().to_record() | {"verifier": "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"}
    assert SignInAttempt.from_record(record).challenge == "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"


@pytest.mark.parametrize(("browser", "now"), [(BROWSER, 1601.0), (Secret("another"), 1001.0), (None, 1001.0)])
def test_another_browser_or_too_late(browser: Secret | None, now: float) -> None:
    """SEC-21."""
    with pytest.raises(InvalidRequestError):
        attempt().check_browser(browser, now=now)
    attempt().check_browser(BROWSER, now=1599.0)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"state": ["s"]},
        {"code": ["c"]},
        {"state": [""], "code": ["c"]},
        {"state": ["s", "s"], "code": ["c"]},
        {"state": ["s"], "code": ["c", "d"]},
        {"state": ["s"], "code": ["c"], "iss": [ISSUER, ISSUER]},
        {"state": ["s"], "code": ["c"], "error": ["access_denied"]},
        {"state": ["s" * 600], "code": ["c"]},
    ],
)
def test_malformed_callback(arguments: dict[str, list[str]]) -> None:
    """SEC-22."""
    with pytest.raises(InvalidRequestError):
        Callback.read(arguments)


@pytest.mark.parametrize(
    ("arguments", "advertised", "error"),
    [
        ({"code": ["c"], "iss": [ISSUER]}, True, None),
        ({"code": ["c"]}, False, None),
        ({"code": ["c"]}, True, InvalidRequestError),
        ({"code": ["c"], "iss": ["https://other.example"]}, False, InvalidRequestError),
        ({"code": ["c"], "iss": [ISSUER + "/"]}, True, InvalidRequestError),
        ({"error": ["access_denied"], "iss": ["https://other.example"]}, True, InvalidRequestError),
        ({"error": ["access_denied"], "iss": [ISSUER]}, True, AccessDeniedError),
        ({"error": ["temporarily_unavailable"]}, False, ProviderUnavailableError),
        ({"error": ["<script>"]}, False, InvalidRequestError),
    ],
)
def test_who_answers_and_what(arguments: dict[str, list[str]], advertised: bool, error: type[AuthError] | None) -> None:
    """SEC-22; RFC 9207, section 2.4."""
    callback = Callback.read(arguments | {"state": ["s"]})
    if error is None:
        assert callback.accept(issuer=ISSUER, iss_parameter=advertised) == Secret("c")
        return
    with pytest.raises(AuthError) as raised:
        callback.accept(issuer=ISSUER, iss_parameter=advertised)
    assert type(raised.value) is error
    assert "<script>" not in str(raised.value) + raised.value.public_message


@pytest.mark.parametrize("hint", ["", "x" * 321, "a\nb"])
def test_malformed_hint(hint: str) -> None:
    with pytest.raises(InvalidRequestError):
        SignInRequest(attempt=attempt(), login_hint=hint)


def test_scope_parameter() -> None:
    assert read_scope("a b:c") == {"a", "b:c"}
    for text in ("", " a", "a  b", 'a"b', "a\tb", "ä", "a" * 1001):
        with pytest.raises(InvalidRequestError):
            read_scope(text)


HOSTILE = [
    "//e", "/\\e", "/\t/e", "/\n/e", "/%09/e", "///e", "/./\\e", "/.//e", "/..//e", "/a/..//e", "https:e", "https://e",
    "javascript:alert(1)", "/%0d%0aX:y", "/%5ce", "/%5C%5Ce", "/%2f/e", "/%2F%2Fe", "/%252f%252fe", "\\/e", " //e",
    "/ /e", "", "e", "@e", "/\x00/e", "/\u2028/e", "/\uff0f/e", "/" * 3000, "?//e", "#", "/\r\nSet-Cookie: a=b",
]  # fmt: skip
LOCAL = [
    "/",
    "/a",
    "/a/b?c=d&e=%20f#g",
    "/dashboard",
    "/a?next=https://e/",
    "/caf%C3%A9",
    "/a//",
    "/..",
    "/%",
    "/a@b:c",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_return_to(text: str) -> None:
    """SEC-24."""
    assert safe_return_to(text) == "/"


@pytest.mark.parametrize("text", [text for text in LOCAL if "//" not in text.partition("?")[0]])
def test_local_return_to(text: str) -> None:
    assert safe_return_to(text) == text


pieces = st.lists(
    st.sampled_from(
        [*"/\\.%:@?#&=;, \t\r\n\x00-_~ae0", "//", "..", "%2f", "%5c", "%09", "%0d%0a", "%25", "https:", "é", "。"]
    ),
    max_size=12,
)  # fmt: skip


def test_browsers_agree_about_return_to() -> None:
    """SEC-24: what passes stays on the origin, by the URL parser that browsers have (WHATWG), decoded once more too."""
    node = require(find_node)
    passed = {*LOCAL}

    @settings(max_examples=2000, deadline=None, database=None, derandomize=True)
    @given(pieces.map("".join) | st.text().map("/".__add__))
    def collect(text: str) -> None:
        kept = safe_return_to("/" + text)
        parts = urlsplit(kept)
        assert (parts.scheme, parts.netloc) == ("", "")
        assert kept.isascii()
        assert kept.isprintable()
        passed.add(kept)

    collect()
    script = """
      const texts = JSON.parse(require('fs').readFileSync(0, 'utf8')), base = 'https://app.example/auth/callback';
      const decoded = (t) => { try { return decodeURI(t); } catch { return t; } };
      const all = texts.flatMap((t) => [t, decoded(t)]);
      const bad = all.filter((t) => new URL(t, base).origin !== 'https://app.example');
      const foreign = ['//e', '/\\\\e', '/\\t/e'].map((t) => new URL(t, base).host);
      console.log(JSON.stringify({ checked: all.length, bad, foreign }));
    """
    result = subprocess.run(
        [node, "-e", script], input=json.dumps(sorted(map(safe_return_to, passed))), capture_output=True, text=True,
        timeout=60, check=True,
    )  # fmt: skip
    report = json.loads(result.stdout)
    assert report["bad"] == []
    assert report["checked"] > 200
    assert report["foreign"] == ["e", "e", "e"]
