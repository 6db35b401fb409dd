"""FastMCP's client as a program: `python fastmcp_client.py JSON`, in an environment that has FastMCP.

Says on standard output, a JSON object a line, `{"authorize": url}` when its user is needed, and at the end
`{"result": {calls, failures, signIns, version}}`. Imports nothing of ours.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
import warnings
from typing import Any

from fastmcp import Client
from fastmcp.client.auth import OAuth

CALLS: list[tuple[str, dict[str, Any]]] = [
    ("whoami", {}),
    ("upstream_profile", {}),
    ("search_content", {"query": "stream"}),
]


def say(what: dict[str, Any]) -> None:
    print(json.dumps(what), flush=True)


class Browserless(OAuth):
    """Prints where the browser would go."""

    sign_ins = 0

    async def redirect_handler(self, authorization_url: str) -> None:
        self.sign_ins += 1
        say({"authorize": authorization_url})


async def main(options: dict[str, Any]) -> None:
    auth = Browserless()
    failures: list[str] = []
    calls = 0
    # Its settings give an authentication to one server only, so a file of many is asked for its one.
    configured = options.get("configuration") or {"mcpServers": {"it": {"url": options["url"]}}}
    ((_, server),) = configured["mcpServers"].items()
    async with Client({"mcpServers": {"it": {**server, "auth": auth}}}) as client:
        end = time.monotonic() + options["seconds"]

        async def worker(name: str, arguments: dict[str, Any]) -> None:
            nonlocal calls
            while time.monotonic() < end:
                calls += 1
                try:
                    result = await client.call_tool(name, arguments, raise_on_error=False)
                    if result.is_error:
                        failures.append(f"{name}: {result.content}")
                except Exception as error:
                    failures.append(f"{name}: {error!r}")
                await asyncio.sleep(options["pause"] / 1000)

        await asyncio.gather(*(worker(name, arguments) for name, arguments in CALLS))
        version = client.protocol_version
    say({"result": {"calls": calls, "failures": failures, "signIns": auth.sign_ins, "version": version}})


warnings.simplefilter("ignore")
asyncio.run(main(json.loads(sys.argv[1])))
