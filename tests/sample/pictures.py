"""Makes the pictures of the pages that README and docs show: `python -m tests.sample.pictures docs/_static`."""

from __future__ import annotations

import asyncio
import logging
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
from pymongo import AsyncMongoClient

from sample_server.demo_session import demo_bearer
from tests.parts import mongod as mongo
from tests.parts.browser import Browser
from tests.parts.sse_client import SSEClient
from tests.sample.sample_page import sample_page
from tornado_sse_auth import Keyring, MongoSessionStore

ACCESS_TTL = 120.0
SECONDS = 280
VISITORS = ("grace", "alan", "linus") * 8
BETWEEN_VISITORS = 4.0
BEFORE_THE_FAULT = 20.0
SCRIPT = """
await page.setViewportSize({ width: 1280, height: 800 });
await page.emulateMedia({ colorScheme: params.colours });
await page.goto(params.url + '/dashboard');
await page.click('#sign-in');
await page.waitForURL((url) => !url.href.startsWith(params.url));
await page.locator('button').first().click();
await page.waitForURL((url) => url.href.startsWith(params.url));
if (params.fault) await page.locator('[data-status="fail"]').first().waitFor({ timeout: 60000 });
await page.waitForTimeout(params.seconds * 1000);
await page.screenshot({ path: params.file, fullPage: true });
return {};
"""


async def _use(url: str, bearers: list[str]) -> None:
    async with httpx.AsyncClient() as client:
        while True:
            for bearer in tuple(bearers):
                await client.get(f"{url}/me", headers={"Authorization": f"Bearer {bearer}"})
                await asyncio.sleep(0.05)


async def _visit(url: str, bearers: list[str], stack: AsyncExitStack) -> None:
    for visitor in VISITORS:
        bearers.append((await demo_bearer(url, visitor)).reveal())
        await stack.enter_async_context(SSEClient(f"{url}/events", bearer=bearers[-1]))
        await asyncio.sleep(BETWEEN_VISITORS)


async def main(folder: Path) -> None:
    """A server over MongoDB with some streams and requests, looked at for a while; then MongoDB stands still."""
    logging.getLogger("httpx").setLevel(logging.WARNING)
    audit = logging.getLogger("tornado_sse_auth.audit")
    audit.setLevel(logging.INFO)
    audit.propagate = False
    with mongo.replica_set(1) as servers:
        store = MongoSessionStore(AsyncMongoClient(servers.uri)["pictures"], Keyring.generate())
        async with (
            sample_page(access_token_ttl=ACCESS_TTL, store=store) as url,
            AsyncExitStack() as stack,
            asyncio.TaskGroup() as tasks,
        ):
            bearers = [(await demo_bearer(url, VISITORS[0])).reveal()]
            background = [tasks.create_task(_visit(url, bearers, stack)), tasks.create_task(_use(url, bearers))]
            look = {"url": url, "timeout": SECONDS + 120}
            file = folder / "dashboard.png"
            await Browser().run(SCRIPT, **look, file=file, colours="light", fault=False, seconds=SECONDS)
            file = folder / "dashboard-dark.png"
            last = tasks.create_task(Browser().run(SCRIPT, **look, file=file, colours="dark", fault=True, seconds=8))
            await asyncio.sleep(BEFORE_THE_FAULT)
            with servers.members[0].stopped():
                await asyncio.wait({last})
            for task in background:
                task.cancel()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]).resolve()))
