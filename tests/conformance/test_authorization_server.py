"""The official suite against the authorization server, with a browser that signs in at the real provider."""

from __future__ import annotations

import asyncio
import json
import secrets
from pathlib import Path

from tests.authorization_server.kit import World, world
from tests.parts.node import find_node, find_packages
from tests.parts.process import free_port
from tests.parts.provider import Provider
from tornado_sse_auth import OAuthProvider
from tornado_sse_auth.authorization_server import Client

COMMAND = Path("node_modules", "@modelcontextprotocol", "conformance", "dist", "index.js")
BOUND = 90.0


async def run(here: World, port: int, client_id: str, folder: Path) -> tuple[int | None, str]:
    """Exit status and output; whatever URL the suite asks a person to open is opened, and agreed to."""
    command: list[str | Path] = [
        *(str(find_node()), str(find_packages() / COMMAND), "authorization", "--url", here.url),
        *("--client-id", client_id, "--resource", f"{here.url}/mcp", "--port", str(port), "--output-dir", folder),
    ]
    suite = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    assert suite.stdout is not None
    lines: list[str] = []
    try:
        async with asyncio.timeout(BOUND):
            while line := (await suite.stdout.readline()).decode():
                lines.append(line)
                if line.startswith(f"{here.url}/oauth/authorize?"):
                    browser = here.browser()
                    page = await browser.open(f"{line.strip()}&login_hint=user-{secrets.token_hex(4)}")
                    answer = await browser.press(page)
                    await browser.http.get(answer.headers["Location"])
            await suite.wait()
    finally:
        if suite.returncode is None:
            suite.kill()
            await suite.wait()
    return suite.returncode, "".join(lines)


async def test_the_authorization_server_conforms(conformance: None, provider: Provider, tmp_path: Path) -> None:
    """Metadata and the code grant; every check passes, and nothing is warned of."""
    port = free_port()
    upstream = OAuthProvider(issuer=provider.issuer, client_id=provider.client_id, client_secret=provider.client_secret)
    client = Client(id="suite", name="The official suite", redirect_uris=("http://127.0.0.1/callback",))
    async with world(provider=upstream, clients=[client]) as here:
        await provider.add_redirect_uri(f"{here.url}/auth/callback")
        status, output = await run(here, port, client.id, tmp_path)
    assert status == 0, output
    assert statuses(tmp_path) == ["SUCCESS"] * 3, output


def statuses(folder: Path) -> list[str]:
    """Of all checks, warnings included, which the suite does not count."""
    return [check["status"] for file in folder.rglob("checks.json") for check in json.loads(file.read_text())]
