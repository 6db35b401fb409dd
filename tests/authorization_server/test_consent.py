"""The consent page and its form: what it says, who may send it, and for which request (SEC-04, SEC-05)."""

from __future__ import annotations

import pytest

from tests.authorization_server.kit import Installation, World, answer_of, form_of


async def client_of(here: World, **more: str) -> Installation:
    client = Installation(here, **more)
    await client.register()
    return client


async def test_the_page_says_what_is_asked(here: World) -> None:
    """SEC-34: who, for which account, where to, what for; each time anew; no script, no frame, nothing remote."""
    client, browser = await client_of(here, scope="content:read"), await here.signed_in()
    for _ in range(2):
        page = await browser.open("/oauth/authorize", **client.query())
        assert page.status_code == 200
        for text in (
            "Editor",
            "alice@users.example",
            "127.0.0.1:33418",
            "read the content",
            "a program on this computer",
        ):
            assert text in page.text
        assert "publish events" not in page.text
        policy = page.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "form-action" not in policy
        assert page.headers["X-Frame-Options"] == "DENY"
        assert page.headers["Cache-Control"] == "no-store"
        assert "<script" not in page.text
        assert answer_of(await browser.press(page)).keys() == {"code", "state", "iss"}
    https = await client_of(here, redirect_uri="https://app.example/cb")
    page = await browser.open("/oauth/authorize", **https.query())
    assert "app.example" in page.text
    assert 'class="warning"' not in page.text
    private = await client_of(here, redirect_uri="cursor://anysphere.cursor-mcp/oauth/callback")
    page = await browser.open("/oauth/authorize", **private.query())
    assert "cursor://anysphere.cursor-mcp" in page.text
    assert "has claimed that address" in page.text


async def test_what_a_client_says_of_itself_is_text(here: World) -> None:
    """SEC-31: shown escaped, without characters that reorder or hide."""
    browser = await here.signed_in()
    client = Installation(here)
    await client.register(
        client_name='<b onclick="x">\u202eEd\u200bitor</b>\u0000&amp;', client_uri="https://c.example/<x>"
    )
    page = await browser.open("/oauth/authorize", **client.query())
    assert "&lt;b onclick=&quot;x&quot;&gt; Ed itor&lt;/b&gt; &amp;amp;" in page.text
    assert "<b " not in page.text
    assert "\u202e" not in page.text
    # Nobody has checked that it is: RFC 7591, section 5.
    assert "<dt>It says that its site is</dt><dd>c.example</dd>" in page.text


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
        {"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "no-cors"},
        {"Sec-Fetch-Mode": "no-cors"},
        {"Origin": ""},
    ],
    ids=str,
)
async def test_only_the_page_itself_sends_the_form(here: World, headers: dict[str, str]) -> None:
    """SEC-25, SEC-34: 403 and nothing is given, whatever the form holds; afterwards the page still works."""
    client, browser = await client_of(here), await here.signed_in()
    page = await browser.open("/oauth/authorize", **client.query())
    if headers == {"Origin": ""}:  # neither of them
        fields = {**form_of(page.text), "decision": "allow"}
        answer = await browser.http.post("/oauth/authorize", data=fields)
    else:
        answer = await browser.press(page, **headers)
    assert answer.status_code == 403
    assert (await here.session(browser.session_id)).grants == ()
    assert "code" in answer_of(await browser.press(page))


async def test_the_form_belongs_to_request_browser_and_account(here: World) -> None:
    """SEC-25, SEC-34, SEC-35: forged, another request's, another browser's, another account's, sent by GET or in the
    query, with a forged, tampered or another's cookie: nothing is given."""
    client, alice, mallory = (
        await client_of(here),
        await here.signed_in(),
        await here.signed_in("https://issuer|mallory"),
    )
    page = await alice.open("/oauth/authorize", **client.query())
    other = await mallory.open("/oauth/authorize", **client.query())
    own, theirs = form_of(page.text), form_of(other.text)
    origin = {"Origin": here.url}
    forged = [
        {**own, "csrf": "x" * 43},
        {**own, "csrf": theirs["csrf"]},
        {**theirs, "csrf": own["csrf"]},
        theirs,
        {"csrf": own["csrf"]},
        {**own, "request": "$x" * 20},
    ]
    for fields in forged:
        answer = await alice.http.post("/oauth/authorize", data={**fields, "decision": "allow"}, headers=origin)
        assert answer.status_code == 400, fields
    assert (
        await alice.http.post("/oauth/authorize", data={**own, "decision": "maybe"}, headers=origin)
    ).status_code == 400
    allow = {**own, "decision": "allow"}
    assert (await alice.http.get("/oauth/authorize", params=allow, headers=origin)).status_code == 400
    assert (await alice.http.post("/oauth/authorize", params=allow, headers=origin)).status_code == 400
    assert (
        await alice.http.post("/oauth/authorize", params={"decision": "allow"}, data=own, headers=origin)
    ).status_code == 400
    binding = f"{here.app.cookie}_authorize"
    mine, others = (str(browser.http.cookies.get(binding)) for browser in (alice, mallory))
    session = str(alice.http.cookies.get(here.app.cookie))
    for value in (others, mine[:-1] + ("A" if mine[-1] != "A" else "B"), "A" * 43, "", "x"):
        cookies = {"Cookie": f"{here.app.cookie}={session}; {binding}={value}"}
        answer = await here.http.post("/oauth/authorize", data=allow, headers={**origin, **cookies})
        assert answer.status_code == 400, value
    # The account changes while the page is open.
    _, cookie = await here.auth.sessions.create(user_id="https://issuer|bob", scopes={"content:read"})
    before = alice.http.cookies.get(here.app.cookie)
    alice.http.cookies.set(here.app.cookie, cookie.reveal(), domain="127.0.0.1")
    alice.http.cookies.delete(here.app.cookie, domain="")
    assert before != alice.http.cookies.get(here.app.cookie)
    assert (await alice.press(page)).status_code == 400
    for browser in (alice, mallory):
        sessions = await here.auth.sessions.sessions_of("https://issuer|alice")
        assert [session.grants for session in sessions] == [()], browser


async def test_a_request_is_for_its_browser(here: World) -> None:
    """SEC-35: nobody can have somebody else sign in, or agree, to a request of theirs."""
    client, alice, mallory = (
        await client_of(here),
        await here.signed_in(),
        await here.signed_in("https://issuer|mallory"),
    )
    page = await mallory.open("/oauth/authorize", **client.query())
    link = f"/oauth/authorize?request={form_of(page.text)['request']}"
    assert (await alice.open(link)).status_code == 400
    assert (await here.browser().open(link)).status_code == 400
    planted = await here.signed_in()
    planted.http.cookies.set(f"{here.app.cookie}_authorize", "x")
    assert (await planted.open(link)).status_code == 400
    assert (await mallory.open(link)).status_code == 200


async def test_many_requests_of_one_browser(here: World) -> None:
    """SEC-36: pages that are open at the same time are all good; cookies do not grow with them."""
    client, browser = await client_of(here), await here.signed_in()
    pages = [await browser.open("/oauth/authorize", **client.query(state=f"s{number}")) for number in range(30)]
    assert sum(len(name) + len(value or "") for name, value in browser.http.cookies.items()) < 500
    for number in (29, 0, 7):
        assert answer_of(await browser.press(pages[number]))["state"] == f"s{number}"


async def test_a_request_is_decided_once_and_in_time(here: World) -> None:
    """Also the no; after ten minutes it is forgotten."""
    client, browser = await client_of(here), await here.signed_in()
    page = await browser.open("/oauth/authorize", **client.query())
    denied = answer_of(await browser.press(page, "deny"))
    assert denied == {**denied, "error": "access_denied", "state": client.state, "iss": here.url}
    assert (await browser.press(page)).status_code == 400
    assert (await here.session(browser.session_id)).grants == ()
    late = await browser.open("/oauth/authorize", **client.query())
    here.clock.advance(601)
    assert (await browser.press(late)).status_code == 400


async def test_who_guesses_cookies_is_slowed(here: World) -> None:
    """SEC-61: unknown session cookies count as bad credentials with a stored request and with its form, too; who has a
    good one goes on."""
    client, alice = await client_of(here), await here.signed_in()
    page = await alice.open("/oauth/authorize", **client.query())
    fields = form_of(page.text)
    binding = str(alice.http.cookies.get(f"{here.app.cookie}_authorize"))
    for number in range(102):
        guess = f"{here.app.cookie}={'A' * 40}{number:03}; {here.app.cookie}_authorize={binding}"
        headers = {"Cookie": guess, "Origin": here.url}
        if number % 2:
            answer = await here.http.get("/oauth/authorize", params={"request": fields["request"]}, headers=headers)
        else:
            answer = await here.http.post("/oauth/authorize", data={**fields, "decision": "allow"}, headers=headers)
        assert (answer.status_code == 429) is (number >= 100), number
    assert int(answer.headers["Retry-After"]) >= 1
    assert "code" in answer_of(await alice.press(page))
