"""The authorization endpoint and its page: what is asked, of whom, and where the answer goes (SEC-04, SEC-05)."""

from __future__ import annotations

from urllib.parse import parse_qs, parse_qsl, urlsplit

import httpx
import pytest

from tests.authorization_server.kit import REDIRECT, Browser, Installation, World, answer_of, form_of, world
from tests.parts.scripted_provider import ScriptedProvider
from tests.scenarios.server import provider_at
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
        {"redirect_uri": "javascript:alert('evil')"},
        {"redirect_uri": "data:text/html,evil"},
        {"redirect_uri": "file:///evil"},
        {"redirect_uri": REDIRECT.replace("/callback", "/x/../callback")},
        {"redirect_uri": REDIRECT.replace("/callback", "/*")},
        {"redirect_uri": REDIRECT.replace("http:", "HTTP:")},
        {"redirect_uri": f"{REDIRECT}%20"},
        {"redirect_uri": f" {REDIRECT}"},
    ],
    ids=str,
)
async def test_nobody_is_sent_to_an_address_that_is_not_the_clients(here: World, wrong: dict[str, str | None]) -> None:
    """SEC-29, SEC-30: 400 and a page, even where everything else is wrong, too; nothing is stored."""
    client, browser = await client_of(here), await here.signed_in()
    worse: dict[str, str | None] = {"response_type": "token", "scope": "unknown", "code_challenge_method": "plain"}
    for more in ({}, worse):
        answer = await browser.http.get("/oauth/authorize", params=client.query(**more, **wrong))
        assert answer.status_code == 400
        assert "Location" not in answer.headers
        assert "<form" not in answer.text
        assert "evil" not in answer.text
        assert answer.headers["Content-Type"].startswith("text/html")
        assert f"{here.app.cookie}=" not in answer.headers.get("Set-Cookie", "")
    assert (await here.auth.kept.trim("authorization-request", keep=0, expiring_before=0.0)).left == 0


async def test_nobody_is_sent_to_sign_in_for_a_request_that_is_refused() -> None:
    """SEC-29: the provider, to whom a good request of somebody who is not signed in leads, hears nothing of others."""
    async with ScriptedProvider() as scripted, world(provider=provider_at(scripted, timeout=3.0)) as here:
        client, nobody = await client_of(here), here.browser()
        begun = len(scripted._calls)
        for wrong in (
            {"client_id": "unknown"},
            {"redirect_uri": "https://evil.example/"},
            {"redirect_uri": "https://evil.example/", "response_type": "token", "code_challenge": None},
            {"scope": "unknown"},
            {"code_challenge_method": "plain"},
        ):
            answer = await nobody.http.get("/oauth/authorize", params=client.query(**wrong))
            assert answer.headers.get("Location", client.redirect_uri).startswith(client.redirect_uri), wrong
            assert (await here.auth.kept.trim("authorization-request", keep=0, expiring_before=0.0)).left == 0
        assert len(scripted._calls) == begun
        good = await nobody.http.get("/oauth/authorize", params=client.query())
        assert good.headers["Location"].startswith("/auth/login?return_to=%2Foauth%2Fauthorize%3Frequest")


async def test_only_a_person_begins_a_request(here: World) -> None:
    """SEC-20, SEC-34: a link from anywhere leads to our page; what another page loads by itself begins nothing, and
    uses up nothing of its visitor's attempts."""
    client, alice = await client_of(here), await here.signed_in()
    page = await alice.http.get(
        "/oauth/authorize",
        params=client.query(),
        headers={"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"},
    )
    assert len(form_of(page.text)) == 2
    begun = (await here.auth.kept.trim("authorization-request", keep=10, expiring_before=0.0)).left
    for headers in (
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"},
        {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors"},
        {"Origin": "https://evil.example"},
    ):
        for _ in range(50):
            answer = await alice.http.get("/oauth/authorize", params=client.query(), headers=headers)
            assert answer.status_code == 403
    assert (await here.auth.kept.trim("authorization-request", keep=10, expiring_before=0.0)).left == begun == 1
    assert (await alice.http.get("/oauth/authorize", params=client.query())).status_code == 200


async def test_the_provider_answers_in_another_browser() -> None:
    """SEC-35; CVE-2026-27124: a request that was begun in one browser, whose way back from the provider is opened in
    another: 400, neither is signed in, no code is exchanged or given; nor can the other one go on with the request."""
    async with ScriptedProvider() as scripted, world(provider=provider_at(scripted, timeout=3.0)) as here:
        client, mallory, victim = await client_of(here), here.browser(), here.browser()
        begun = await mallory.http.get("/oauth/authorize", params=client.query())
        login = await mallory.http.get(begun.headers["Location"])
        back = (await here.http.get(login.headers["Location"])).headers["Location"]
        answer = await victim.http.get(back)
        assert answer.status_code == 400
        assert "Set-Cookie" not in answer.headers
        assert scripted.calls("token", grant_type="authorization_code") == []
        assert (await mallory.http.get(back)).status_code == 400
        request = parse_qs(urlsplit(begun.headers["Location"]).query)["return_to"][0]
        signed_in = await here.signed_in()
        for browser in (victim, signed_in):
            answer = await browser.http.get(request)
            assert answer.status_code == 400
            assert "<form" not in answer.text
        assert (await here.session(signed_in.session_id)).grants == ()


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
    """SEC-38: the metadata's, in a good answer and in an error, also where the redirect URI brings an `iss`, a `code`
    or a `state` of its own."""
    own = "http://127.0.0.1:33418/callback?tenant=%2Fa&iss=https://evil.example&code=stale&state=stale"
    client, browser = await client_of(here, redirect_uri=own), await here.signed_in()
    issuer = (await here.http.get("/.well-known/oauth-authorization-server")).json()["issuer"]
    assert issuer == here.url

    def brought(answer: httpx.Response, *added: str) -> dict[str, str]:
        pairs = parse_qsl(urlsplit(answer.headers["Location"]).query)
        found = dict(pairs)
        assert sorted(name for name, _ in pairs) == sorted(["tenant", "iss", "state", *added])
        assert (found["tenant"], found["iss"], found["state"]) == ("/a", issuer, client.state)
        return found

    page, other = [await browser.open("/oauth/authorize", **client.query()) for _ in range(2)]
    code = brought(await browser.press(page), "code")["code"]
    assert (await client.exchange(code)).status_code == 200
    denied = brought(await browser.press(other, decision="deny"), "error", "error_description")
    assert denied["error"] == "access_denied"
    wrong = await browser.open("/oauth/authorize", **client.query(response_type="token"))
    assert brought(wrong, "error", "error_description")["error"] == "unsupported_response_type"


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
