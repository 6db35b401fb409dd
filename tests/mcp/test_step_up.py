"""A missing scope is a challenge only where the client can get it: else clients would sign in again in a loop."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from mcp.server.mcpserver import MCPServer

from tests.mcp.serving import Client, Running, named, serving
from tornado_sse_auth import Secret, Session, SSEAuthenticationMiddleware
from tornado_sse_auth.identity import Credential, CredentialKind, Grant
from tornado_sse_auth.mcp import requires


def build(auth: SSEAuthenticationMiddleware) -> MCPServer[Any]:
    server = named(auth)

    @server.tool(meta=requires(scopes={"a:read", "b:read"}))
    async def scoped() -> str:
        return "in"

    @server.tool(meta=requires(scopes={"elsewhere:read"}))
    async def elsewhere() -> str:
        return "in"

    @server.prompt()
    async def prompt() -> str:
        return "in"

    auth.protect("/mcp", scopes=("a:read", "b:read"))
    return server


async def client_of(running: Running, session: Session, *, scopes: set[str], refused: set[str]) -> Client:
    """The access token of a grant with these scopes, which was refused those."""
    now = time.time()
    resource = f"{running.url}/mcp"
    token = Secret.random()
    grant = Grant(
        id=token.digest().hex()[:32],
        client_id="client",
        redirect_uri="http://127.0.0.1/callback",
        audience=(resource,),
        scopes=frozenset(scopes),
        refused=frozenset(refused),
        created_at=now,
        last_used=now,
    )
    access = Credential(
        digest=token.digest(),
        kind=CredentialKind.BEARER,
        created_at=now,
        expires_at=now + 600,
        grant=grant.id,
        scopes=grant.scopes,
        audience=(resource,),
    )
    await running.auth.sessions.update(
        session.id,
        lambda stored: replace(stored, grants=(*stored.grants, grant), credentials=(*stored.credentials, access)),
    )
    return running.client(token.reveal())


async def test_what_can_be_had_is_a_challenge_and_what_cannot_is_a_result() -> None:
    """SEC-17: all that the call needs in one challenge; a scope that the account was found not to have, or that this
    server gives to nobody, ends the loop."""
    async with serving(build) as running:
        session, _ = await running.sign_in(scopes={"a:read"})
        never_asked = await client_of(running, session, scopes={"a:read"}, refused=set())
        challenged = await never_asked.tool("scoped")
        assert challenged.status_code == 403
        assert 'scope="a:read b:read"' in challenged.headers["WWW-Authenticate"]
        assert 'error="insufficient_scope"' in challenged.headers["WWW-Authenticate"]

        refused_before = await client_of(running, session, scopes={"a:read"}, refused={"b:read"})
        for client, tool, name in ((refused_before, "scoped", "b:read"), (never_asked, "elsewhere", "elsewhere:read")):
            answer = await client.tool(tool)
            assert answer.status_code == 200
            assert "WWW-Authenticate" not in answer.headers
            assert answer.json()["result"]["isError"] is True
            assert name in answer.json()["result"]["content"][0]["text"]
            assert answer.json()["result"]["_meta"]["tornado-sse-auth/error"]["error"] == "insufficient_scope"

        # The account has the scope by now: the client may ask its user again.
        await running.auth.sessions.update(
            session.id, lambda stored: replace(stored, scopes=frozenset({"a:read", "b:read"}))
        )
        assert (await refused_before.tool("scoped")).status_code == 403
        granted = await client_of(running, session, scopes={"a:read", "b:read"}, refused=set())
        assert (await granted.tool("scoped")).json()["result"]["content"][0]["text"] == "in"
