"""What the sample's page tells people to copy, copied: each configuration connects a real client."""

from __future__ import annotations

import json
import re
import shlex
import tempfile
from collections.abc import AsyncIterator
from html import unescape
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.mcp.clients import programs
from tests.mcp.clients.deployment import Deployment, deployed
from tests.mcp.clients.programs import Program, bridged
from tests.mcp.clients.work import Order
from tests.parts import mongod as mongo
from tests.parts.fastmcp_environment import find_fastmcp
from tests.parts.node import find_node, find_packages
from tests.parts.process import free_port
from tests.parts.provider import Provider
from tests.parts.require import require


@pytest.fixture
async def deployment(mongod: mongo.ReplicaSet | mongo.ExternalMongo, provider: Provider) -> AsyncIterator[Deployment]:
    async with deployed(provider, mongod.uri, processes=1, access_token_ttl=600) as running:
        yield running


def package(name: str, version: str) -> Path:
    """What `npx` would fetch: it is among the parts, in the version that the page names."""
    folder = find_packages() / "node_modules" / name
    manifest = json.loads((folder / "package.json").read_text())
    assert manifest["version"] == version
    binaries = manifest["bin"]
    # npx takes the one that is called like the package.
    return folder / (binaries if isinstance(binaries, str) else binaries[name.rpartition("/")[2]])


def without_npx(words: list[str]) -> list[str | Path]:
    """`npx -y NAME@VERSION …` with what is there."""
    npx, yes, spec, *arguments = words
    assert (npx, yes) == ("npx", "-y")
    name, _, version = spec.rpartition("@")
    return [find_node(), package(name, version), *arguments]


async def test_each_of_them_connects(deployment: Deployment) -> None:
    require(find_packages)
    require(find_fastmcp)
    url = deployment.url
    async with httpx.AsyncClient(trust_env=False) as browser:
        page = (await browser.get(f"{url}/")).text
    copied = {
        name: unescape(text)
        for name, text in re.findall(r'<pre class="command" id="mcp-by-(\w+)"[^>]*>(.*?)</pre>', page, re.DOTALL)
    }
    assert copied.keys() == {"address", "program", "inspector"}
    assert set(re.findall(r'data-copies="mcp-by-(\w+)"', page)) == copied.keys()

    def order(name: str) -> Order:
        return Order(url, deployment.provider.issuer, f"page-{name}", 1.0)

    by_address: Any = json.loads(copied["address"])
    outcome = await programs.fastmcp(order("address"), configuration=by_address)
    assert (outcome.failures, outcome.sign_ins) == ([], 1)
    assert outcome.calls >= 3

    by_program = json.loads(copied["program"])["mcpServers"]["sample"]
    command = without_npx([by_program["command"], *by_program["args"]])
    outcome = await bridged(order("program"), [*command, str(free_port())])
    assert (outcome.failures, outcome.sign_ins) == ([], 1)
    assert outcome.calls >= 3

    program = Program(order("inspector"))
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        environment = {"HOME": home, "PATH": str(find_node().parent), "MCP_AUTO_OPEN_ENABLED": "true"}
        callback = ["--callback-url", f"http://127.0.0.1:{free_port()}/oauth/callback"]
        command = without_npx(shlex.split(copied["inspector"]))
        text = await program.run([*command, *callback], environment=environment)
    assert program.sign_ins == 1
    assert f"{deployment.provider.issuer}|page-inspector" in text
