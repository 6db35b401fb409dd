"""The audit log: every row of its table in the reference, seen; nothing in it that is secret or forged."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.authorization_server.kit import world as authorization_server
from tests.parts.scripted_provider import Answer
from tests.security.kit import World, world
from tornado_sse_auth.errors import AuthError
from tornado_sse_auth.testing import ManualClock

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "audit.md"
FIELDS = {"time", "event", "request_id", "user_id", "session_id", "client", "remote", "outcome", "reason"}


def documented() -> set[tuple[str, str]]:
    """Event and outcome of each row; `*` for an error code."""
    rows = re.findall(r"^\| `([a-z-]+)` \| (`([a-z]+)`|an \[error code\][^|]*) \|", PAGE.read_text(), re.MULTILINE)
    return {(event, outcome or "*") for event, _, outcome in rows}


def codes() -> set[str]:
    """Every error code there is."""

    def below(kind: type[AuthError]) -> set[str]:
        return {vars(kind).get("code", "")}.union(*(below(child) for child in kind.__subclasses__()))

    return below(AuthError) - {""}


def seen(running: World) -> list[dict[str, Any]]:
    """The lines so far."""
    return [json.loads(line.message) for line in running.log.records if line.name == "tornado_sse_auth.audit"]


async def everything(running: World) -> None:
    """All that is audited, once."""
    origin = {"Origin": running.app.url}
    async with running.client(headers={"User-Agent": 'evil"}\n{"event":"forged'.replace("\n", " ")}) as browser:
        await running.sign_in(browser)
        session_id = (await browser.get("/me")).json()["session_id"]
        clock = running.app.auth.clock
        assert isinstance(clock, ManualClock)
        for answer in (
            Answer(),
            Answer(status=500),
            Answer(delivery="cut", spends=False),
            Answer(status=400, body='{"error":"invalid_grant"}'),
        ):
            clock.advance(4000)  # the access token has expired, and so has every pause
            running.scripted.script("token", answer)
            refreshed = await browser.get("/upstream")
        url = refreshed.json()["authorization_url"]
        await running.sign_in(browser, reauth=parse_qs(urlsplit(url).query)["reauth"][0])
        assert (await browser.get("/me")).json()["session_id"] == session_id
        await browser.get("/auth/callback", params={"state": "x" * 43, "code": "y"})
        await browser.get("/demand/permission")
        await browser.get("/me", headers={"Host": "evil.example"})
        await browser.post("/auth/backchannel-logout", data={"logout_token": "e30.e30.e30"})
        await browser.post("/auth/logout", headers=origin)
        await running.sign_in(browser)
        await browser.post("/auth/logout", json={"everywhere": True}, headers=origin)


async def test_every_row_of_the_table_is_written(caplog: pytest.LogCaptureFixture) -> None:
    """SEC-09, SEC-58: each event and outcome of the reference, and none beside them; every line has the same fields, is
    one line, and names the request that its answer names."""
    async with world(caplog, clock=ManualClock()) as running:
        await everything(running)
        lines = seen(running)
        answered = {answer.headers["X-Request-ID"] for answer in running.answers}
    known = codes()
    rows = {(line["event"], "*" if line["outcome"] in known else line["outcome"]) for line in lines}
    elsewhere = {("grant", "success"), ("client-registration", "success"), ("key-rotation", "success")}
    assert rows == documented() - elsewhere
    for line in lines:
        assert set(line) == FIELDS
        assert line["request_id"] in answered
        assert line["remote"] == "127.0.0.1"
        assert line["client"].startswith('evil"}')
    assert all("\n" not in record.getMessage() for record in caplog.records if record.name.endswith(".audit"))
    signed_in = [line for line in lines if (line["event"], line["outcome"]) == ("sign-in", "success")]
    assert all(line["user_id"].endswith("|alice") and line["session_id"] for line in signed_in)


async def test_what_clients_are_given_is_written_too(caplog: pytest.LogCaptureFixture) -> None:
    """SEC-09: a client that registers, and a user who allows it. The operator's `key-rotation` is seen in
    tests/operator."""
    caplog.set_level(logging.INFO, logger="tornado_sse_auth.audit")
    async with authorization_server() as served:
        installed = await served.installation()
    lines = [json.loads(line.message) for line in caplog.records if line.name == "tornado_sse_auth.audit"]
    written = [(line["event"], line["outcome"], installed.client_id in (line["reason"] or "")) for line in lines]
    assert ("client-registration", "success", True) in written
    assert ("grant", "success", True) in written
    assert all(set(line) == FIELDS for line in lines)
