"""The way of a client from nothing to its tokens, as the documents tell it."""

from __future__ import annotations

from tests.authorization_server.kit import ALL, Installation, World


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
