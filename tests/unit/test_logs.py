"""Lines as JSON, secrets taken out, repeats counted."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from tornado_sse_auth import JSONFormatter, RedactionFilter, RepeatFilter, RequestIdFilter, Secret
from tornado_sse_auth.audit import AuditLog, RequestInfo, current_request
from tornado_sse_auth.testing import ManualClock


class Written:
    """A handler as the sample has it, and its lines."""

    def __init__(self, clock: ManualClock) -> None:
        self._stream = io.StringIO()
        self.handler = logging.StreamHandler(self._stream)
        self.handler.setFormatter(JSONFormatter())
        for each in (RequestIdFilter(), RepeatFilter(burst=3, window=10.0, clock=clock), RedactionFilter()):
            self.handler.addFilter(each)

    @property
    def text(self) -> str:
        return self._stream.getvalue()

    def lines(self) -> list[dict[str, str]]:
        return [json.loads(line) for line in self.text.splitlines()]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def written(clock: ManualClock) -> Iterator[Written]:
    it = Written(clock)
    loggers = [logging.getLogger(name) for name in ("tornado_sse_auth", "somebody")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.addHandler(it.handler)
        logger.setLevel(logging.DEBUG)
    yield it
    for logger, level in zip(loggers, levels, strict=True):
        logger.removeHandler(it.handler)
        logger.setLevel(level)


def test_a_line_is_an_object(written: Written, clock: ManualClock) -> None:
    token = current_request.set(RequestInfo(request_id="r-1", remote="192.0.2.1"))
    try:
        logging.getLogger("tornado_sse_auth.part").warning("two\nlines of %s", "text")
        AuditLog(clock).write("sign-in", outcome="success", user_id="alice")
    finally:
        current_request.reset(token)
    try:
        int("broken")
    except ValueError:
        logging.getLogger("tornado_sse_auth.part").exception("it failed")
    warning, audited, failed = written.lines()
    assert warning.pop("time").endswith("+00:00")
    assert warning == {
        "level": "warning",
        "logger": "tornado_sse_auth.part",
        "request_id": "r-1",
        "message": "two\nlines of text",
    }
    assert (audited["event"], audited["user_id"], audited["logger"]) == ("sign-in", "alice", "tornado_sse_auth.audit")
    assert "message" not in audited
    assert "request_id" not in failed
    assert "invalid literal for int() with base 10: 'broken'" in failed["exception"]


def test_secrets_are_taken_out(written: Written) -> None:
    """SEC-58: by type, and by what they look like."""
    canary = "Cn4ry-0123456789abcdefABCDEF"
    jwt = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJlc2lnbmF0dXJl"
    log = logging.getLogger("somebody")
    log.info("typed %s %r", Secret(canary), Secret(canary))
    log.info("Authorization: Bearer %s", canary)
    log.info("{'access_token': '%s', \"refresh_token\": \"%s\"}", canary, canary)
    log.info("POST body client_secret=%s&code_verifier=%s", canary, canary)
    log.info("GET /auth/callback?code=%s&state=%s", canary, canary)
    log.info("Cookie: __Host-session=%s; sse_auth_8000=%s", canary, canary)
    log.info("connecting to mongodb://user:%s@db.example/?replicaSet=rs0", canary)
    log.info("the token %s", jwt)
    try:
        int(f"access_token={canary}")
    except ValueError:
        log.exception("failed")
    log.info("status code: 200, the state is reauthorization, codec utf-8")
    assert canary not in written.text
    assert jwt not in written.text
    lines = written.lines()
    assert "mongodb://[redacted]@db.example/?replicaSet=rs0" in lines[6]["message"]
    assert lines[-1]["message"] == "status code: 200, the state is reauthorization, codec utf-8"


def test_repeats_are_counted(written: Written, clock: ManualClock) -> None:
    log, audit = logging.getLogger("tornado_sse_auth.part"), AuditLog(clock)
    for number in range(415):
        log.warning("session %d waits for the store", number)
        audit.write("refresh", outcome="transient", session_id=str(number))
    log.warning("another statement")
    lines = [line for line in written.lines() if line["logger"] != "tornado_sse_auth.audit"]
    assert [line["message"] for line in lines] == [
        *(f"session {number} waits for the store" for number in range(3)),
        "another statement",
    ]
    assert len(written.lines()) == 415 + 4, "the audit log is whole"
    clock.advance(10.0)
    log.warning("session %d waits for the store", 999)
    assert [line["message"] for line in written.lines()[-2:]] == [
        "repeated 412 times: session %d waits for the store",
        "session 999 waits for the store",
    ]
