"""The token and the revocation endpoint, and where the tokens are good."""

from __future__ import annotations

import asyncio
import base64

import pytest

from tests.authorization_server.kit import ALL, Installation, World
from tornado_sse_auth import Secret


def basic(name: str, secret: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:{secret}".encode()).decode()


async def test_a_code_is_for_its_client_alone_and_for_a_minute(here: World) -> None:
    """SEC-11, SEC-32, SEC-33, SEC-37: who is wrong spends nothing; the second valid use ends what the first gave."""
    browser = await here.signed_in()
    client, other = Installation(here, resource=f"{here.url}/mcp"), Installation(here)
    await client.register()
    await other.register(client_name="Other")
    code = await client.code(browser)
    for wrong, error in (
        ({"client_id": other.client_id}, "invalid_grant"),
        ({"redirect_uri": "http://127.0.0.1:33419/callback"}, "invalid_grant"),
        ({"code_verifier": "v" * 43}, "invalid_grant"),
        ({"code_verifier": None}, "invalid_request"),
        ({"code_verifier": "v" * 42}, "invalid_request"),
        ({"code_verifier": "v" * 129}, "invalid_request"),
        ({"resource": f"{here.url}/sse"}, "invalid_target"),
        ({"resource": "https://elsewhere.example"}, "invalid_target"),
        ({"scope": "unknown"}, "invalid_scope"),
        ({"code": code[:-1] + ("A" if code[-1] != "A" else "B")}, "invalid_grant"),
    ):
        refused = await client.exchange(**{"code": code, **wrong})
        assert (refused.status_code, refused.json()["error"]) == (400, error), wrong
    good = await client.exchange(code)
    assert good.status_code == 200
    client.tokens = good.json()
    assert (await client.get()).status_code == 200
    # Who lacks the verifier cannot end the grant either.
    assert (await client.exchange(code, code_verifier="v" * 43)).json()["error"] == "invalid_grant"
    assert (await client.get()).status_code == 200
    assert (await client.exchange(code)).json()["error"] == "invalid_grant"
    assert (await client.get()).json()["error"] == "invalid_token"
    assert (await client.refresh()).json()["error"] == "invalid_grant"
    assert (await here.session(browser.session_id)).grants == ()
    late = await client.code(browser)
    here.clock.advance(61)
    assert (await client.exchange(late)).json()["error"] == "invalid_grant"
    assert (await here.session(browser.session_id)).grants[0].pending  # forgotten with the next change
    await client.connect(browser)
    assert len((await here.session(browser.session_id)).grants) == 1


async def test_one_code_fifty_times_at_once(processes: tuple[World, World]) -> None:
    """SEC-33: over two processes; exactly one wins, and as the code came twice, nothing of it stays."""
    first, second = processes
    browser = await first.signed_in()
    here, there = Installation(first), Installation(second)
    await here.register()
    code = await here.code(browser)
    there.client_id, there.verifier = here.client_id, here.verifier
    answers = await asyncio.gather(*((here if number % 2 else there).exchange(code) for number in range(50)))
    good = [answer.json() for answer in answers if answer.status_code == 200]
    assert len(good) == 1
    assert {answer.json()["error"] for answer in answers if answer.status_code != 200} == {"invalid_grant"}
    for client in (here, there):
        assert (await client.refresh(good[0]["refresh_token"])).json()["error"] == "invalid_grant"
    assert (await first.session(browser.session_id)).grants == ()


async def test_what_the_token_endpoint_does_not_take(here: World) -> None:
    """SEC-41: each with its status, never 500, never kept."""
    client = await here.installation()
    form = {
        "grant_type": "refresh_token",
        "refresh_token": client.tokens["refresh_token"],
        "client_id": client.client_id,
    }
    encoded = "&".join(f"{name}={value}" for name, value in form.items())
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    async with here.program() as http:
        answers = {
            "get": (await http.get("/oauth/token", params=form), 405, "method_not_allowed"),
            "json": (await http.post("/oauth/token", json=form), 400, "invalid_request"),
            "text": (
                await http.post("/oauth/token", content=encoded, headers={"Content-Type": "text/plain"}),
                400,
                "invalid_request",
            ),
            "none": (await http.post("/oauth/token", content=encoded), 400, "invalid_request"),
            "multipart": (await http.post("/oauth/token", files={"grant_type": "x"}), 400, "invalid_request"),
            "query": (await http.post("/oauth/token", params=form, headers=kind), 401, "invalid_client"),
            "utf-8": (await http.post("/oauth/token", content=b"client_id=\xff", headers=kind), 400, "invalid_request"),
            "percent": (await http.post("/oauth/token", content="client_id=%ff", headers=kind), 400, "invalid_request"),
            "many": (await http.post("/oauth/token", content="a=1&" * 100, headers=kind), 400, "invalid_request"),
            "large": (
                await http.post("/oauth/token", content="a=" + "1" * 70_000, headers=kind),
                413,
                "request_too_large",
            ),
            "grant": (await client.call(grant_type="password"), 400, "unsupported_grant_type"),
            "no grant": (await client.call(), 400, "invalid_request"),
            "unknown": (await client.call(**{**form, "client_id": "unknown"}), 401, "invalid_client"),
            "operator": (await client.call(**{**form, "client_id": '{"$gt":""}'}), 401, "invalid_client"),
            "no client": (await client.call(**{**form, "client_id": None}), 401, "invalid_client"),
        }
        for name in form:
            twice = await http.post("/oauth/token", content=f"{encoded}&{name}={form[name]}", headers=kind)
            answers[f"{name} twice"] = (twice, 400, "invalid_request")
        twice = await http.post("/oauth/token", content=f"{encoded}&resource=a&resource=b", headers=kind)
        answers["resource twice"] = (twice, 400, "invalid_target")
    for name, (answer, status, error) in answers.items():
        assert (answer.status_code, answer.json()["error"]) == (status, error), name
        assert answer.headers["Cache-Control"] == "no-store", name
        assert answer.headers["Access-Control-Allow-Origin"] == "*", name
        assert ("Basic" in answer.headers.get("WWW-Authenticate", "")) is (status == 401), name
    assert (await client.refresh()).status_code == 200  # nothing was spent


async def test_a_client_authenticates_as_it_registered(here: World) -> None:
    """SEC-41: broken, in another way, with another's secret: 401 and Basic; in two ways: 400."""
    browser = await here.signed_in()
    poster, header, public = (Installation(here) for _ in range(3))
    await poster.register(token_endpoint_auth_method="client_secret_post")
    answer = await header.register(token_endpoint_auth_method=None)
    assert answer["token_endpoint_auth_method"] == "client_secret_basic"
    assert answer["client_secret_expires_at"] == 0
    await public.register()
    await poster.connect(browser)
    secret, header.client_secret = header.client_secret or "", None
    code = await header.code(browser)
    form = {"grant_type": "authorization_code", "code": code, "code_verifier": header.verifier}
    async with here.program() as http:

        async def call(authorization: str, **more: str) -> tuple[int, str]:
            response = await http.post("/oauth/token", data={**form, **more}, headers={"Authorization": authorization})
            assert response.headers["Cache-Control"] == "no-store"
            if response.status_code == 401:
                assert response.headers["WWW-Authenticate"].startswith("Basic ")
            return response.status_code, response.json().get("error")

        refused = (401, "invalid_client")
        assert await call("Basic") == refused
        assert await call("Basic !!!") == refused
        assert await call("Basic " + base64.b64encode(b"\xff\xfe").decode()) == refused
        assert await call("Basic " + base64.b64encode(header.client_id.encode()).decode()) == refused
        assert await call(f"Bearer {secret}") == refused
        assert await call(basic(header.client_id, secret + "x")) == refused
        assert await call(basic(header.client_id, "")) == refused
        assert await call(basic(header.client_id, poster.client_secret or "")) == refused
        assert await call(basic(poster.client_id, poster.client_secret or "")) == refused
        assert await call(basic(public.client_id, "")) == refused
        assert await call(basic(header.client_id, secret), client_secret=secret) == (400, "invalid_request")
        assert await call(basic(header.client_id, secret), client_id=public.client_id) == (400, "invalid_request")
        assert (await header.call(**form, client_secret=secret)).status_code == 401
        assert (await header.call(**form)).status_code == 401
        assert await call(basic(header.client_id, secret), client_id=header.client_id) == (200, None)
    assert (await public.call(grant_type="refresh_token", refresh_token="x", client_secret="x")).status_code == 401


async def test_where_a_token_is_good(here: World) -> None:
    """SEC-15, SEC-16: an access token at the resources of its audience alone, and nothing else as a bearer at all."""
    browser = await here.signed_in()
    client = await here.installation(browser, resource=f"{here.url}/mcp")
    assert (await client.get("/mcp")).status_code == 200
    session = await here.session(browser.session_id)
    code = await client.code(browser)
    refresh_token = client.tokens["refresh_token"]
    cookie = browser.http.cookies.get(here.app.cookie) or ""
    access_token = client.tokens["access_token"]
    for path, token in (
        ("/sse", access_token),
        ("/me", access_token),
        ("/prices", access_token),
        ("/auth/sessions", access_token),
        ("/mcp", refresh_token),
        ("/mcp", refresh_token[:43]),
        ("/mcp", refresh_token[43:]),
        ("/mcp", code),
        ("/mcp", session.id),
        ("/mcp", session.grants[0].id),
        ("/mcp", cookie),
        ("/mcp", Secret(access_token).digest().hex()),
        ("/mcp", base64.urlsafe_b64encode(Secret(access_token).digest()).decode().rstrip("=")),
    ):
        answer = await client.get(path, token)
        assert (answer.status_code, answer.json()["error"]) == (401, "invalid_token"), (path, token)
        assert 'error="invalid_token"' in answer.headers["WWW-Authenticate"]
        where = "/mcp" if path == "/mcp" else "/sse" if path == "/sse" else ""
        metadata = f'resource_metadata="{here.url}/.well-known/oauth-protected-resource{where}"'
        assert metadata in answer.headers["WWW-Authenticate"]
    assert (await client.get("/mcp")).status_code == 200
    async with here.program() as http:
        assert (await http.get("/mcp", params={"access_token": access_token})).status_code == 401
        mint = await http.post(
            "/auth/token", json={"grant": "session"}, headers={"Authorization": f"Bearer {access_token}"}
        )
        assert mint.status_code == 401
        minted = await browser.http.post("/auth/token", json={"grant": "session"}, headers={"Origin": here.url})
        bearer = {"Authorization": f"Bearer {minted.json()['access_token']}"}
        for path in ("/me", "/mcp", "/sse"):
            assert (await http.get(path, headers=bearer)).status_code == 200


async def test_a_token_may_be_good_for_less(here: World) -> None:
    """SEC-39: narrower scopes and resources for one access token, never wider ones; the grant stays as it is."""
    client = await here.installation()
    one = f"{here.url}/sse"
    narrow = await client.refresh(scope="content:read", resource=one)
    assert narrow.json()["scope"] == "content:read"
    assert (await client.get("/mcp")).status_code == 401
    assert (await client.get("/sse")).json()["scopes"] == ["content:read"]
    assert set((await client.refresh()).json()["scope"].split()) == ALL
    assert (await client.get("/mcp")).status_code == 200
    reader = await here.installation(scope="content:read", resource=one)
    wider = {"scope": "content:read events:write", "resource": f"{here.url}/mcp"}
    for name, error in (("scope", "invalid_scope"), ("resource", "invalid_target")):
        refused = await reader.refresh(**{name: wider[name]})
        assert refused.json()["error"] == error
    assert (await reader.refresh()).status_code == 200


@pytest.mark.parametrize("kind", ["access_token", "refresh_token"])
async def test_revocation(here: World, kind: str) -> None:
    """SEC-42: of one's own token ends the grant and its streams, whatever the hint; of another's does nothing."""
    browser = await here.signed_in()
    client, other = await here.installation(browser), await here.installation(browser)
    stranger = Installation(here)
    await stranger.register(client_name="Stranger")
    async with here.app.stream("/stream", bearer=client.tokens["access_token"]) as stream:
        await stream.next("open")
        for answer in (
            await stranger.call("/oauth/revoke", token=client.tokens[kind]),
            await client.call("/oauth/revoke", token="unknown"),
            await client.call("/oauth/revoke", token="x" * 86),
        ):
            assert answer.status_code == 200
        assert (await client.call("/oauth/revoke")).json()["error"] == "invalid_request"
        assert (await client.get()).status_code == 200
        hint = "refresh_token" if kind == "access_token" else "nonsense"
        answer = await client.call("/oauth/revoke", token=client.tokens[kind], token_type_hint=hint)
        assert (answer.status_code, answer.content) == (200, b"")
        assert (await stream.next("end")).json() == {"reason": "revoked"}
    assert (await client.get()).status_code == 401
    assert (await client.refresh()).json()["error"] == "invalid_grant"
    assert (await client.call("/oauth/revoke", token=client.tokens[kind])).status_code == 200
    assert (await other.get()).status_code == 200
    assert (await browser.http.get("/me")).status_code == 200


async def test_who_guesses_is_slowed(here: World) -> None:
    """SEC-61: 429 for wrong codes and secrets from one peer; who is right is served all the same."""
    client = await here.installation()
    for _ in range(100):
        assert (await client.call(grant_type="authorization_code", code="x", code_verifier="v" * 43)).status_code == 400
    limited = await client.call(grant_type="authorization_code", code="x", code_verifier="v" * 43)
    assert (limited.status_code, limited.json()["error"]) == (429, "rate_limited")
    assert int(limited.headers["Retry-After"]) >= 1
    assert (await client.refresh()).status_code == 200


async def test_pages_of_any_origin_may_call(here: World) -> None:
    """Clients in browsers: without credentials, with the headers that they send; a preflight needs no token."""
    asked = {
        "Origin": "https://inspector.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type,mcp-protocol-version",
    }
    async with here.program() as http:
        for path in (
            "/oauth/token",
            "/oauth/register",
            "/oauth/revoke",
            "/.well-known/oauth-authorization-server",
            "/.well-known/oauth-protected-resource",
            "/.well-known/oauth-protected-resource/mcp",
        ):
            preflight = await http.options(path, headers=asked)
            assert preflight.status_code == 204
            assert preflight.headers["Access-Control-Allow-Origin"] == "*"
            assert "mcp-protocol-version" in preflight.headers["Access-Control-Allow-Headers"].lower()
            assert "Access-Control-Allow-Credentials" not in preflight.headers
        for origin in ("https://inspector.example", here.url):
            document = await http.get("/.well-known/oauth-authorization-server", headers={"Origin": origin})
            assert document.headers["Access-Control-Allow-Origin"] == "*"
            assert "Access-Control-Allow-Credentials" not in document.headers
        page = await here.browser().http.get("/oauth/authorize", headers={"Origin": "https://inspector.example"})
        assert "Access-Control-Allow-Origin" not in page.headers
        assert (await http.get("/.well-known/oauth-protected-resource/other")).status_code == 404
        assert (await http.get("/.well-known/oauth-protected-resource/sse")).json()["resource"] == f"{here.url}/sse"
        assert (await http.get("/.well-known/openid-configuration")).status_code == 404
