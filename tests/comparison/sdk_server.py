"""The official SDK on uvicorn: `python -m tests.comparison.sdk_server PORT ISSUER`.

It ships no verifier of JWTs, so there is one of ours that says of a token what the SDK asks, its audience included.
"""

from __future__ import annotations

import sys
import warnings
from typing import Any

import httpx2
import uvicorn
from joserfc import jwt
from joserfc.jwk import KeySet
from mcp.server.auth.provider import AccessToken
from mcp.server.auth.settings import AuthSettings
from mcp.server.mcpserver import MCPServer
from pydantic import AnyHttpUrl


class Verifier:
    """Signature and expiry; the rest is the SDK's to judge."""

    def __init__(self, issuer: str) -> None:
        self._issuer = issuer

    async def verify_token(self, token: str) -> AccessToken | None:
        """What the token says."""
        async with httpx2.AsyncClient(trust_env=False) as http:
            keys = KeySet.import_key_set((await http.get(f"{self._issuer}/jwks")).json())
        claims = jwt.decode(token, keys).claims
        return AccessToken(
            token=token,
            client_id=claims["client_id"],
            scopes=claims.get("scope", "").split(),
            expires_at=int(claims["exp"]),
            resource=claims["aud"],
            subject=claims["sub"],
        )


def main(port: int, issuer: str) -> None:
    """Serve until ended."""
    warnings.simplefilter("ignore")
    url = AnyHttpUrl(f"http://127.0.0.1:{port}/mcp")
    settings = AuthSettings(
        issuer_url=AnyHttpUrl(issuer), resource_server_url=url, required_scopes=["a:read", "b:read"]
    )
    server: MCPServer[Any] = MCPServer("compared", token_verifier=Verifier(issuer), auth=settings, log_level="WARNING")

    @server.tool()
    def whoami() -> str:
        return "somebody"

    uvicorn.run(server.streamable_http_app(), host="127.0.0.1", port=port, log_level="warning")


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
