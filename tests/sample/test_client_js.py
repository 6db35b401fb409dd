"""`/auth/client.js` in Chromium, against a server that fails as scripted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.parts.browser import Browser
from tests.sample.scripted_streams import Connection, Script, ScriptedStreams, scripted_streams

# `until` polls the page with an expression: a function of the page's own could not be, under its policy.
PRELUDE = """
const until = async (expression) => { while (!await page.evaluate(expression)) await page.waitForTimeout(10); };
const seen = () => page.evaluate('({events, states, pageErrors})');
await page.goto(params.origin);
await until('window.ready');
"""


@pytest.fixture
async def streams() -> AsyncIterator[ScriptedStreams]:
    async with scripted_streams() as server:
        yield server


async def watch(browser: Browser, streams: ScriptedStreams, script: str, **params: Any) -> dict[str, Any]:
    """Run `script` on the watching page; it has `until(expression)` and `seen()`."""
    return await browser.run(PRELUDE + script, timeout=30, origin=streams.origin, **params)


def answering(status: int, body: Any = None, **headers: str) -> Script:
    async def script(connection: Connection) -> None:
        await connection.answer(status, body, **headers)

    return script


def ending(reason: str) -> Script:
    async def script(connection: Connection) -> None:
        await connection.event({"reason": reason}, event="end")

    return script


async def staying(connection: Connection) -> None:
    await connection.event({"user_id": "ann"}, event="open")
    await connection.until_gone()


def names(seen: dict[str, Any]) -> list[str]:
    return [state["state"] for state in seen["states"]]


HARD = (
    "\ufeff: comment\r\rdata: one\r\n\r\ndata:two\ndata:  lines\n\nevent: named\rdata\r\rid: 7\n\n"
    "data: has seven\n\nid: n\0l\ndata: still seven\n\nid\ndata: none\r\n\r\nid: \u00e9\u4e16\nignored: x\n"
    "data: {\U0001f30d}\n\nevent: lost\n\ndata: a message\n\nretry: 1x\nretry: 30\n"
    "data:\n\n:\n\ndata: \ufeffinside\n\ndata: never finished\n"
)


async def test_reads_what_the_browsers_own_event_source_reads(browser: Browser, streams: ScriptedStreams) -> None:
    """All line ends, byte order mark, comments, ids with NUL and without ASCII; cut between any two bytes."""

    async def byte_by_byte(connection: Connection) -> None:
        for byte in HARD.encode():
            await connection.send(bytes([byte]))

    streams.script(byte_by_byte, answering(204), byte_by_byte, answering(204))
    seen = await watch(
        browser,
        streams,
        """
        await page.evaluate(() => {
          window.native = [];
          const source = new EventSource('/stream');
          const note = ({type, data, lastEventId}) => window.native.push({type, data, lastEventId});
          for (const type of ['message', 'named', 'lost']) source.addEventListener(type, note);
          source.onerror = () => { window.over = source.readyState === EventSource.CLOSED; };
        });
        await until('window.over');
        await page.evaluate('watch()');
        await until('now().state === "closed"');
        const splits = await page.evaluate((text) => {
          const read = (...pieces) => {
            const parser = new EventParser();
            return JSON.stringify([...pieces.flatMap((piece) => [...parser.feed(piece)]), parser.retry]);
          };
          const whole = read(text);
          return Array.from(text, (_, at) => read(text.slice(0, at), '', text.slice(at)) === whole);
        }, params.text.slice(1));
        return {native: await page.evaluate('native'), splits, ...await seen()};
        """,
        text=HARD,
    )
    assert seen["events"] == seen["native"]
    assert len(seen["events"]) == 10
    assert all(seen["splits"])
    assert streams.asked[1].last_event_id == streams.asked[3].last_event_id
    waiting = next(state for state in seen["states"] if state["state"] == "waiting")
    assert 0.03 <= waiting["retry_in"] <= 0.05
    assert waiting["reason"] == "ended"


async def test_misses_nothing_and_doubles_nothing_when_cut_mid_event(
    browser: Browser, streams: ScriptedStreams
) -> None:
    last = 40

    async def cut_after_a_few(connection: Connection) -> None:
        sent = int(connection.asked.last_event_id or 0)
        few = 1 + len(streams.asked) % 4
        for n in range(sent + 1, min(sent + few, last) + 1):
            await connection.event({"n": n}, event="message", id=n)
        if sent + few < last:
            await connection.send(f"id: {sent + few + 1}\ndata: half an ev".encode() + "é".encode()[:1])
            await asyncio.sleep(0.02)  # let it arrive: a reset takes what is unread with it
            connection.cut()
        else:
            await connection.until_gone()

    streams.script(cut_after_a_few)
    seen = await watch(
        browser,
        streams,
        """
        await page.evaluate('watch({base: 5})');
        await until(`events.length >= ${params.last}`);
        return seen();
        """,
        last=last,
    )
    assert [event["lastEventId"] for event in seen["events"]] == [str(n) for n in range(1, last + 1)]
    assert [event["data"] for event in seen["events"]] == [f'{{"n": {n}}}' for n in range(1, last + 1)]
    assert {state["reason"] for state in seen["states"] if state["state"] == "waiting"} == {"network"}
    assert {asked.accept for asked in streams.asked} == {"text/event-stream"}


async def test_waits_as_the_server_asks_and_tries_again(browser: Browser, streams: ScriptedStreams) -> None:
    """REL-18: no answer but a final one makes it give up."""

    async def broken(connection: Connection) -> None:
        await connection.answer_broken()

    busy = {"error": "overloaded", "error_description": "Full.", "request_id": "r-1"}
    streams.script(
        answering(503, busy, Retry_After="1"),
        answering(502, "<html>a proxy's page", Retry_After="nonsense"),
        # Closed, or the browser itself would try the next request again on a new connection.
        answering(429, {"error": "too_many_streams"}, Retry_After="Thu, 01 Jan 1970 00:00:00 GMT", Connection="close"),
        broken,
        staying,
    )
    seen = await watch(
        browser,
        streams,
        """
        await page.evaluate('watch()');
        await until('states.some(({state}) => state === "waiting")');
        // Being looked at shortens a wait of our own, and none that the server asked for.
        await page.evaluate(() => document.dispatchEvent(new Event('visibilitychange')));
        await until('events.length');
        return seen();
        """,
    )
    waits = [state for state in seen["states"] if state["state"] == "waiting"]
    assert [wait["reason"] for wait in waits] == ["overloaded", "http_502", "too_many_streams", "network"]
    assert waits[0].items() >= {"status": 503, "error_description": "Full.", "request_id": "r-1"}.items()
    assert 1 <= waits[0]["retry_in"] <= 1.02
    assert all(wait["retry_in"] <= 0.05 for wait in waits[1:])
    assert streams.asked[1].at - streams.asked[0].at >= 0.99
    assert names(seen)[-1] == "open"


async def test_backs_off_with_full_jitter_and_comes_at_once_when_it_may(
    browser: Browser, streams: ScriptedStreams
) -> None:
    """REL-18: pages that lost the same server do not come back together."""
    streams.script(*[answering(500)] * 8, staying, ending("server_shutdown"), staying)
    seen = await watch(
        browser,
        streams,
        """
        await page.evaluate(() => { Math.random = () => 0.5; watch({base: 8, cap: 300}); });
        await until('events.length');
        const delays = (await seen()).states.filter(({state}) => state === 'waiting').map(({retry_in}) => retry_in);
        await page.evaluate(() => watch({base: 1e9, cap: 1e9}));
        await until('now().state === "waiting"');
        const asked = await page.evaluate('now().retry_in');
        await context.setOffline(true);
        await context.setOffline(false);
        await until('now().state === "open"');
        return {delays, asked, ...await seen()};
        """,
    )
    assert seen["delays"] == [0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.15, 0.15]
    assert seen["asked"] == 500_000
    assert names(seen) == ["connecting", "open", "waiting", "connecting", "open"]


FINAL: tuple[tuple[Script, dict[str, Any]], ...] = (
    (
        answering(403, {"error": "insufficient_scope", "error_description": "Needs more.", "request_id": "r"}),
        {
            "state": "refused",
            "reason": "insufficient_scope",
            "status": 403,
            "error_description": "Needs more.",
            "request_id": "r",
        },
    ),
    (answering(404, "<h1>no"), {"state": "refused", "reason": "http_404", "status": 404}),
    (answering(200, "<h1>sign in"), {"state": "refused", "reason": "not_an_event_stream", "status": 200}),
    (answering(204), {"state": "closed", "reason": "no_content"}),
    (ending("insufficient_permission"), {"state": "refused", "reason": "insufficient_permission"}),
    (ending("session_expired"), {"state": "signed_out", "reason": "session_expired", "authorization_url": None}),
    (ending("revoked"), {"state": "signed_out", "reason": "revoked", "authorization_url": None}),
    (
        answering(401, "the proxy says no"),
        {"state": "signed_out", "reason": "http_401", "status": 401, "authorization_url": None},
    ),
)
HOSTILE_URLS = (
    "javascript:alert(1)",
    "data:text/html,x",
    "//evil.example/auth/login",
    "https://evil.example/auth/login",
    "/\\evil.example",
    "http://127.0.0.1:1/auth/login",
    "http://[",
    7,
    None,
)


async def test_stops_where_coming_back_is_of_no_use(browser: Browser, streams: ScriptedStreams) -> None:
    """An authorization URL of another origin or scheme is never handed to the page."""
    unauthorized = [answering(401, {"error": "invalid_token", "authorization_url": url}) for url in HOSTILE_URLS]
    streams.script(*(script for script, _ in FINAL), *unauthorized, staying)
    seen = await watch(
        browser,
        streams,
        """
        const finals = [];
        for (let n = 0; n < params.finals; n += 1) {
          await page.evaluate('watch()');
          await until('now().state !== "connecting" && now().state !== "open"');
          finals.push(await page.evaluate('now()'));
        }
        await page.waitForTimeout(200);  // in which none of them comes back
        return {finals};
        """,
        finals=len(FINAL) + len(HOSTILE_URLS),
    )
    assert seen["finals"][: len(FINAL)] == [state for _, state in FINAL]
    assert {state["authorization_url"] for state in seen["finals"][len(FINAL) :]} == {None}
    assert len(streams.asked) == len(FINAL) + len(HOSTILE_URLS)


async def test_comes_back_after_the_other_ends(browser: Browser, streams: ScriptedStreams) -> None:
    reasons = ["server_shutdown", "slow_consumer", "error", "one_of_the_future"]
    streams.script(*(ending(reason) for reason in reasons), staying)
    seen = await watch(browser, streams, "await page.evaluate('watch()'); await until('events.length'); return seen();")
    assert [state["reason"] for state in seen["states"] if state["state"] == "waiting"] == reasons


async def test_signs_in_again_on_the_open_stream_and_after_its_end(browser: Browser, streams: ScriptedStreams) -> None:
    url = f"{streams.origin}/auth/login?reauth=abc"
    signed_in = asyncio.Event()

    async def grace(connection: Connection) -> None:
        await connection.event({"n": 1}, event="price", id=1)
        await connection.event({"authorization_url": "https://evil.example/", "reason": "other"}, event="auth_required")
        await connection.event({"authorization_url": url, "reason": "invalid_grant"}, event="auth_required")
        await connection.event({"n": 2}, event="price", id=2)
        await connection.event({"session_id": "s", "expires_at": 9}, event="auth_restored")
        await connection.event({"n": 3}, event="price", id=3)
        await connection.event({"authorization_url": url, "reason": "invalid_grant"}, event="auth_required")
        await connection.event({"reason": "reauthorization"}, event="end")

    async def after_sign_in(connection: Connection) -> None:
        signed_in.set()
        await connection.event({"n": 4}, event="price", id=4)
        await connection.until_gone()

    streams.script(grace, answering(401, {"error": "authorization_required", "authorization_url": url}), after_sign_in)
    seen = await watch(
        browser,
        streams,
        """
        await page.evaluate('watch()');
        await until('now().state === "signed_out"');
        await page.evaluate('stream.reconnect()');
        await until('states.filter(({state}) => state === "signed_out").length === 2');
        await page.evaluate('stream.reconnect()');
        await until('events.length === 4');
        return seen();
        """,
    )
    assert signed_in.is_set()
    open_, required, out = {"state": "open"}, "invalid_grant", "signed_out"
    again = {"state": "reauthorization", "reason": required, "authorization_url": url}
    assert seen["states"] == [
        {"state": "connecting"},
        open_,
        {"state": "reauthorization", "reason": "other", "authorization_url": None},
        again,
        open_,
        again,
        {"state": out, "reason": "reauthorization", "authorization_url": url},
        {"state": "connecting"},
        {"state": out, "reason": "authorization_required", "status": 401, "authorization_url": url},
        {"state": "connecting"},
        open_,
    ]
    assert [event["type"] for event in seen["events"]] == ["price"] * 4
    assert [asked.last_event_id for asked in streams.asked] == [None, "3", "3"]


async def test_notices_a_silent_connection_and_lives_by_heartbeats(browser: Browser, streams: ScriptedStreams) -> None:
    """A connection that vanished without a word is given up when a heartbeat is long overdue."""

    async def beats_then_falls_silent(connection: Connection) -> None:
        await connection.event({}, event="message", id=5)
        for _ in range(10):
            await asyncio.sleep(0.1)
            await connection.send(":\n\n")
        await connection.until_gone()

    async def never_answers(connection: Connection) -> None:
        await connection.until_gone()

    streams.script(beats_then_falls_silent, never_answers, staying)
    seen = await watch(
        browser,
        streams,
        """
        await page.evaluate('watch({silence: 600})');
        await until('events.length === 2');
        return seen();
        """,
    )
    waits = [state["reason"] for state in seen["states"] if state["state"] == "waiting"]
    assert waits == ["silent", "silent"]
    assert streams.asked[1].at - streams.asked[0].at >= 1.5
    assert streams.asked[2].last_event_id == "5"


async def test_closes_at_once_and_outlives_errors_of_the_page(browser: Browser, streams: ScriptedStreams) -> None:
    gone = asyncio.Event()

    async def two_in_one_piece(connection: Connection) -> None:
        await connection.send("data: 1\n\ndata: 2\n\ndata: 3\n\n")
        await connection.until_gone()
        gone.set()

    streams.script(two_in_one_piece)
    seen = await watch(
        browser,
        streams,
        """
        await page.evaluate(() => watch({}, ({data}) => {
          if (data === '1') throw new Error('of the page');
          stream.close();
        }));
        await until('now().state === "closed"');
        await page.evaluate('stream.close()');
        await page.waitForTimeout(100);
        return seen();
        """,
    )
    async with asyncio.timeout(5):
        await gone.wait()
    assert [event["data"] for event in seen["events"]] == ["1", "2"]
    assert len(seen["pageErrors"]) == 1
    assert names(seen) == ["connecting", "open", "closed"]
    assert seen["states"][-1]["reason"] == "client"
    assert len(streams.asked) == 1
