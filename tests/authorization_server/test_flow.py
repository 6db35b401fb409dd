"""The way of a client from nothing to its tokens, as the documents tell it."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from authlib.oauth2.rfc8414 import AuthorizationServerMetadata

from tests.authorization_server.kit import ALL, REDIRECT, Installation, World, world
from tornado_sse_auth import ConfigurationError, MemorySessionStore, Secret, SSEAuthenticationMiddleware
from tornado_sse_auth.authorization_server import AuthorizationServer, Client
from tornado_sse_auth.authorization_server.metadata import server_metadata
from tornado_sse_auth.authorization_server.resources import Resources


async def test_from_a_challenge_to_an_answer(here: World) -> None:
    """401 leads to the resource, that to the server, that to registration, consent, tokens; and those open the
    resource."""
    async with here.program() as http:
        challenge = (await http.get("/mcp")).headers["WWW-Authenticate"]
        metadata_url = challenge.partition('resource_metadata="')[2].partition('"')[0]
        resource = (await http.get(metadata_url)).json()
        assert resource["resource"] == f"{here.app.url}/mcp"
        server = (
            await http.get(f"{resource['authorization_servers'][0]}/.well-known/oauth-authorization-server")
        ).json()
        assert server["issuer"] == here.app.url
    client = Installation(here, scope="content:read offline_access", resource=f"{here.app.url}/mcp")
    await client.register()
    browser = await here.signed_in()
    tokens = await client.connect(browser)
    assert tokens["token_type"] == "Bearer"
    assert tokens["expires_in"] == 600
    assert tokens["scope"] == "content:read"
    me = (await client.get()).json()
    assert me["session_id"] == browser.session_id
    assert me["scopes"] == ["content:read"]
    assert (await client.refresh()).status_code == 200
    assert (await client.get()).json() == me


async def test_all_that_there_is(here: World) -> None:
    """No scope and no resource, as clients of 2025-03-26: all that the session has, at every resource."""
    client = await here.installation()
    assert set(client.tokens["scope"].split()) == ALL
    assert (await client.get("/mcp")).status_code == 200
    assert (await client.get("/sse")).status_code == 200
    refused = await client.get("/me")
    assert refused.status_code == 401
    assert refused.json()["error"] == "invalid_token"


def test_the_metadata_is_valid() -> None:
    """By Authlib's reading of RFC 8414; the scopes are the application's, and there is no OpenID Connect in it."""
    resources = Resources("https://s.example", ("/mcp", "/sse"), {"a": "do A", "b": "do B"})
    document = server_metadata("https://s.example", resources)
    AuthorizationServerMetadata(document).validate()
    assert document["scopes_supported"] == ["a", "b", "offline_access"]
    assert document["code_challenge_methods_supported"] == ["S256"]
    assert document["authorization_response_iss_parameter_supported"] is True
    assert document["client_id_metadata_document_supported"] is True
    assert "jwks_uri" not in document


@pytest.mark.parametrize(
    "wrong",
    [
        {"resources": ()},
        {"resources": ("mcp",)},
        {"clients": [Client(id="c", redirect_uris=("javascript:x",))]},
        {"clients": [Client(id="c", redirect_uris=())] * 2},
        {"max_clients": 0},
        {"max_registrations": 0},
    ],
    ids=str,
)
async def test_what_an_application_may_not_ask_for(wrong: dict[str, Any]) -> None:
    """Said at start, with what to mend."""
    auth = SSEAuthenticationMiddleware(MemorySessionStore(), public_url="https://s.example")
    with pytest.raises(ConfigurationError):
        AuthorizationServer(auth, **wrong)


async def test_a_client_that_the_application_names() -> None:
    """It need not register; with a secret it may send that in both ways."""
    secret = Secret.random()
    confidential = Client(id="web", redirect_uris=(REDIRECT,), name="Web", secret_digest=secret.digest())
    async with world(clients=[confidential]) as here:
        client = Installation(here, client_id="web", client_secret=secret.reveal())
        browser = await here.signed_in()
        await client.connect(browser)
        assert (await client.get()).status_code == 200
        form = {"grant_type": "refresh_token", "refresh_token": client.tokens["refresh_token"]}
        basic = httpx.BasicAuth("web", secret.reveal())
        assert (await here.http.post("/oauth/token", data=form, auth=basic)).status_code == 200
        client.client_secret = None
        assert (await client.refresh()).status_code == 401
