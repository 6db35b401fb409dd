"""What an answer of the token endpoint means."""

from __future__ import annotations

import json

import pytest

from tornado_sse_auth.identity import Secret
from tornado_sse_auth.oauth.http import Answer
from tornado_sse_auth.oauth.outcome import ClientRejected, RefreshRejected, Spent, TransientFailure
from tornado_sse_auth.oauth.token_response import MAX_LIFETIME, TokenResponse, read_token_answer

OLD = Secret("old-refresh-token")


def answer(body: object, status: int = 200, retry_after: float | None = None) -> Answer:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Answer(status=status, body=data, retry_after=retry_after)


def token_set(**changes: object) -> TokenResponse:
    document = {"access_token": "a", "token_type": "Bearer", "expires_in": 60} | changes
    return read_token_answer(answer(document), presented=OLD)


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        (300, 300),
        ("300", 300),
        (0.5, 1),
        (0, None),
        (-5, None),
        (None, None),
        (True, None),
        ("soon", None),
        ([], None),
        (1e300, MAX_LIFETIME),
        (10**40, MAX_LIFETIME),
        (float("nan"), None),
        (float("inf"), None),
    ],
)
def test_lifetime(given: object, seconds: float | None) -> None:
    """REL-14: a life that makes no sense is assumed later, and never stands for "refresh at once"."""
    assert token_set(expires_in=given).expires_in == seconds


def test_lifetime_absent() -> None:
    assert read_token_answer(answer({"access_token": "a", "token_type": "bearer"})).expires_in is None


@pytest.mark.parametrize("given", [None, "", OLD.reveal()])
def test_no_rotation_keeps_the_old_refresh_token(given: object) -> None:
    """REL-14."""
    assert token_set(refresh_token=given).refresh_token is None
    assert token_set().refresh_token is None


def test_rotation() -> None:
    assert token_set(refresh_token="new").refresh_token == Secret("new")


@pytest.mark.parametrize(
    ("given", "scopes"),
    [(None, None), ("openid", {"openid"}), ("a  b", {"a", "b"}), ("", set()), (["a", "b"], {"a", "b"})],
)
def test_scopes(given: object, scopes: set[str] | None) -> None:
    """REL-14: absent means unchanged, and is told apart from none."""
    assert token_set(scope=given).scopes == scopes


@pytest.mark.parametrize(
    "changes",
    [
        {"token_type": "mac"},
        {"token_type": 5},
        {"access_token": 5},
        {"access_token": None},
        {"access_token": ""},
        {"access_token": "a\r\nX: y"},
        {"access_token": "ä"},
        {"refresh_token": 5},
        {"refresh_token": ["new"]},
        {"scope": 5},
    ],
)
def test_malformed_token_set(changes: dict[str, object]) -> None:
    """REL-13, REL-14: nothing of it is used, and the refresh token may be spent."""
    with pytest.raises(TransientFailure) as failure:
        token_set(**changes)
    assert failure.value.spent is Spent.UNKNOWN


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>Welcome</html>",
        b"[]",
        b"{}",
        b'"text"',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"access_token":"\\ud800"}',
        b'{"error":"other"}',
        b'{"error":"invalid_grant"}',
    ],
)
def test_unreadable_success(body: bytes) -> None:
    """REL-13."""
    with pytest.raises(TransientFailure) as failure:
        read_token_answer(answer(body))
    assert failure.value.spent is Spent.UNKNOWN


@pytest.mark.parametrize(
    ("status", "body", "failure"),
    [
        (400, {"error": "invalid_grant"}, RefreshRejected),
        (401, {"error": "invalid_grant"}, RefreshRejected),
        (200, {"error": "bad_refresh_token"}, RefreshRejected),
        (401, {"error": "invalid_client"}, ClientRejected),
        (400, {"error": "unauthorized_client"}, ClientRejected),
        (400, {"error": "invalid_scope"}, ClientRejected),
        (200, {"error": "incorrect_client_credentials"}, ClientRejected),
    ],
)
def test_final_refusals(status: int, body: object, failure: type[Exception]) -> None:
    """REL-10: only `invalid_grant` needs the user; our own mistakes need the operator."""
    with pytest.raises(failure):
        read_token_answer(answer(body, status))


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (500, {"error": "invalid_grant"}),
        (503, {"error": "invalid_client"}),
        (302, {}),
        (400, {"error": ["invalid_grant"]}),
        (400, {"error": "slow_down"}),
        (401, b""),
        (403, {"message": "no"}),
        (404, {"access_token": "a", "token_type": "bearer"}),
        (429, {"detail": "later"}),
    ],
)
def test_refusals_worth_another_attempt(status: int, body: object) -> None:
    """REL-10, REL-12, REL-13: a complete answer that is no success leaves the token unspent."""
    with pytest.raises(TransientFailure) as failure:
        read_token_answer(answer(body, status, retry_after=7.0))
    assert (failure.value.spent, failure.value.retry_after) == (Spent.UNSPENT, 7.0)


def test_no_provider_text_in_a_reason() -> None:
    with pytest.raises(TransientFailure) as failure:
        read_token_answer(answer({"error": "secret-text", "error_description": "secret-text"}, 400))
    assert "secret-text" not in f"{failure.value!r} {failure.value.reason}"
    assert "secret-text" not in repr(token_set(access_token="secret-text", id_token="secret-text"))
