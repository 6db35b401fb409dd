"""FastMCP with its own verifier: `python fastmcp_server.py PORT ISSUER`, in an environment that has FastMCP."""

from __future__ import annotations

import sys
import warnings

from fastmcp import FastMCP
from fastmcp.server.auth import RemoteAuthProvider
from fastmcp.server.auth.providers.jwt import JWTVerifier
from pydantic import AnyHttpUrl

warnings.simplefilter("ignore")
port, issuer = int(sys.argv[1]), sys.argv[2]
verifier = JWTVerifier(jwks_uri=f"{issuer}/jwks", issuer=issuer, required_scopes=["a:read", "b:read"])
auth = RemoteAuthProvider(
    token_verifier=verifier, authorization_servers=[AnyHttpUrl(issuer)], base_url=f"http://127.0.0.1:{port}"
)
server = FastMCP("compared", auth=auth)


@server.tool
def whoami() -> str:
    return "somebody"


server.run(transport="http", host="127.0.0.1", port=port, show_banner=False, log_level="WARNING")
