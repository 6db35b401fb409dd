"""The authorization endpoint and its page: what is asked, of whom, and where the answer goes (SEC-04, SEC-05)."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlsplit

import pytest

from tests.authorization_server.kit import REDIRECT, Browser, Installation, World, answer_of, form_of
from tornado_sse_auth.identity import SessionState


async def client_of(here: World, **more: str) -> Installation:
    client = Installation(here, **more)
    await client.register()
    return client


async def refused(browser: Browser, query: dict[str, str]) -> str:
    """The error that the client is told of."""
    answer = answer_of(await browser.open("/oauth/authorize", **query))
    assert answer["iss"] == browser.world.url
    assert answer["error_description"]
    assert "code" not in answer
    return answer["error"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"client_id": "unknown"},
        {"client_id": None},
        {"redirect_uri": None},
        {"redirect_uri": "https://evil.example/"},
        {"redirect_uri": f"{REDIRECT}/"},
        {"redirect_uri": f"{REDIRECT}?x=1"},
        {"redirect_uri": REDIRECT.replace("callback", "Callback")},
        {"redirect_uri": REDIRECT.replace("127.0.0.1", "localhost")},
        {"redirect_uri": REDIRECT.replace("127.0.0.1", "u@127.0.0.1")},
        {"redirect_uri": f"{REDIRECT}#f"},
        {"redirect_uri": "http://127.0.0.1:33418@evil.example/callback"},
        {"redirect_uri": "http://127.0.0.1:x/callback"},
    ],
    ids=str,
)
async def test_nobody_is_sent_to_an_address_that_is_not_the_clients(here: World, wrong: dict[str, str | None]) -> None:
    """SEC-29, SEC-30: 400 and a page, even where everything else is wrong, too."""
    client, browser = await client_of(here), await here.signed_in()
    worse: dict[str, str | None] = {"response_type": "token", "scope": "unknown", "code_challenge_method": "plain"}
    for more in ({}, worse):
        answer = await browser.http.get("/oauth/authorize", params=client.query(**more, **wrong))
        assert answer.status_code == 400
        assert "Location" not in answer.headers
        assert "<form" not in answer.text
        assert "evil" not in answer.text


async def test_the_port_is_free_on_loopback(here: World) -> None:
    """SEC-30: RFC 8252, section 7.3; nowhere else."""
    browser = await here.signed_in()
    for host in ("127.0.0.1", "localhost", "[::1]"):
        client = await client_of(here, redirect_uri=f"http://{host}/callback")
        client.redirect_uri = f"http://{host}:51234/callback"
        await client.connect(browser)
    client = await client_of(here, redirect_uri="https://127.0.0.1/callback")
    answer = await browser.http.get(
        "/oauth/authorize", params=client.query(redirect_uri="https://127.0.0.1:1/callback")
    )
    assert answer.status_code == 400


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"response_type": None}, "unsupported_response_type"),
        ({"response_mode": "fragment"}, "invalid_request"),
        ({"code_challenge": None}, "invalid_request"),
        ({"code_challenge_method": None}, "invalid_request"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"code_challenge": "a" * 42}, "invalid_request"),
        ({"code_challenge": "a" * 129}, "invalid_request"),
        ({"code_challenge": "ä" * 43}, "invalid_request"),
        ({"resource": "https://elsewhere.example/mcp"}, "invalid_target"),
        ({"resource": "{url}"}, "invalid_target"),
        ({"resource": "{url}/mcp//"}, "invalid_target"),
        ({"resource": "{url}/mcp#f"}, "invalid_target"),
        ({"resource": "{url}/MCP"}, "invalid_target"),
        ({"scope": "openid"}, "invalid_scope"),
        ({"scope": "content:read  events:write"}, "invalid_scope"),
        ({"scope": "a\nb"}, "invalid_scope"),
        ({"prompt": "none login"}, "invalid_request"),
        ({"prompt": "create"}, "invalid_request"),
        ({"prompt": "none"}, "consent_required"),
        ({"state": "s" * 5000}, "invalid_request"),
    ],
    ids=str,
)
async def test_the_client_is_told_what_is_wrong(here: World, wrong: dict[str, str | None], error: str) -> None:
    """SEC-32, SEC-37, SEC-38: by a redirect that names us once."""
    client, browser = await client_of(here), await here.signed_in()
    filled = {name: value and value.replace("{url}", here.url) for name, value in wrong.items()}
    assert await refused(browser, client.query(**filled)) == error


async def test_nothing_may_be_repeated(here: World) -> None:
    """SEC-22, SEC-37: which of two counts is not ours to guess; for two resources the client is told so."""
    client, browser = await client_of(here, resource=f"{here.url}/mcp"), await here.signed_in()
    query = client.query()
    for name, value in query.items():
        answer = await browser.http.get("/oauth/authorize", params=[*query.items(), (name, value)])
        if name == "resource":
            assert answer_of(answer)["error"] == "invalid_target"
        else:
            assert answer.status_code == 400, name
    strange = await browser.http.get("/oauth/authorize?client_id=%ff")
    assert strange.status_code == 400
    mixed = await browser.http.get("/oauth/authorize", params={**query, "request": "x"})
    assert mixed.status_code == 400


async def test_a_resource_may_be_written_in_some_ways(here: World) -> None:
    """Scheme and host in upper case and one slash at the end are tolerated (RFC 3986, section 6.2.2)."""
    client, browser = await client_of(here), await here.signed_in()
    for written in (f"{here.url}/mcp", f"{here.url}/mcp/", f"{here.url.upper()}/mcp"):
        await client.connect(browser, resource=written)
        assert (await client.get("/mcp")).status_code == 200
        assert (await client.get("/sse")).status_code == 401


async def test_exactly_one_issuer(here: World) -> None:
    """SEC-38: also where the redirect URI brings an `iss`, a `code` or a `state` of its own."""
    own = "http://127.0.0.1:33418/callback?tenant=%2Fa&iss=https://evil.example&code=stale&state=stale"
    client, browser = await client_of(here, redirect_uri=own), await here.signed_in()
    page = await browser.open("/oauth/authorize", **client.query())
    answer = await browser.press(page)
    assert answer.status_code == 303
    pairs = parse_qsl(urlsplit(answer.headers["Location"]).query)
    assert [value for name, value in pairs if name == "iss"] == [here.url]
    assert [value for name, value in pairs if name == "state"] == [client.state]
    assert ("tenant", "/a") in pairs
    assert ("code", "stale") not in pairs
    assert len(pairs) == 4
    assert (await client.exchange(dict(pairs)["code"])).status_code == 200


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
    """SEC-34, SEC-35: forged, another request's, another browser's, another account's: nothing is given."""
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


async def test_what_is_granted(here: World) -> None:
    """What is asked for, offered, and held by the session; of nothing of that the client is told."""
    reader = await here.signed_in(scopes={"content:read", "openid"})
    client = await client_of(here)
    assert (await client.connect(reader))["scope"] == "content:read"
    assert (await client.connect(reader, scope="content:read events:write offline_access"))["scope"] == "content:read"
    assert await refused(reader, client.query(scope="events:write")) == "access_denied"
    stranger = await here.signed_in(scopes=())
    assert (await client.connect(stranger))["scope"] == ""
    assert (await client.get()).json()["scopes"] == []


async def test_without_a_provider_somebody_must_be_signed_in(here: World) -> None:
    """Nobody, or a session that needs its user: a page; with `prompt=none` the client is told."""
    client, nobody = await client_of(here), here.browser()
    assert (await nobody.open("/oauth/authorize", **client.query())).status_code == 401
    assert await refused(nobody, client.query(prompt="none")) == "login_required"
    waiting = await here.signed_in()
    session = await here.session(waiting.session_id)
    assert await here.auth.store.require_reauthorization(session, spent_version=0) is not None
    assert (await here.session(waiting.session_id)).state is SessionState.REAUTHORIZATION
    assert (await waiting.open("/oauth/authorize", **client.query())).status_code == 401
    assert await refused(waiting, client.query(prompt="none")) == "login_required"


async def test_only_get_and_post_and_only_our_host(here: World) -> None:
    """SEC-20, SEC-25; a bearer is no sign-in here."""
    browser = await here.signed_in()
    for method in ("PUT", "DELETE", "PATCH"):
        assert (await browser.http.request(method, "/oauth/authorize")).status_code == 405
    client = await client_of(here)
    await client.connect(browser)
    for path in ("/oauth/authorize", "/oauth/token", "/oauth/register", "/oauth/revoke"):
        response = await browser.http.request(
            "GET" if path.endswith("ze") else "POST", path, headers={"Host": "evil.example"}
        )
        assert response.status_code == 421, path
    bearer = {"Authorization": f"Bearer {client.tokens['access_token']}"}
    answer = await here.browser().http.get("/oauth/authorize", params=client.query(prompt="none"), headers=bearer)
    assert answer_of(answer)["error"] == "login_required"
