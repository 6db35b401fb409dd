"""Makes the pictures of the pages that README and docs show: `python -m tests.sample.pictures docs/_static`."""

from __future__ import annotations

import asyncio
import logging
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import httpx

from sample_server.demo_session import demo_bearer
from tests.parts.browser import Browser
from tests.parts.sse_client import SSEClient
from tests.sample.sample_page import sample_page

ACCESS_TTL = 20.0
SECONDS = 100
STREAMS = 12
SCRIPT = """
await page.setViewportSize({ width: 1280, height: 800 });
await page.goto(params.url + '/dashboard');
await page.click('#sign-in');
await page.waitForURL((url) => !url.href.startsWith(params.url));
await page.locator('button').first().click();
await page.waitForURL((url) => url.href.startsWith(params.url));
await page.waitForTimeout(params.seconds * 1000);
for (const [name, colorScheme] of [['dashboard', 'light'], ['dashboard-dark', 'dark']]) {
  await page.emulateMedia({ colorScheme });
  await page.waitForTimeout(1500);
  await page.screenshot({ path: `${params.folder}/${name}.png`, fullPage: true });
}
return {};
"""


async def _use(url: str, bearer: str) -> None:
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {bearer}"}) as client:
        while True:
            await client.get(f"{url}/me")
            await asyncio.sleep(0.05)


async def main(folder: Path) -> None:
    """A server with some streams and requests, looked at for a while."""
    logging.getLogger("tornado_sse_auth.audit").setLevel(logging.INFO)
    async with sample_page(access_token_ttl=ACCESS_TTL) as url, AsyncExitStack() as stack:
        for _ in range(STREAMS):
            bearer = (await demo_bearer(url)).reveal()
            headers = {"Authorization": f"Bearer {bearer}"}
            await stack.enter_async_context(SSEClient(f"{url}/events", headers=headers))
        using = asyncio.create_task(_use(url, bearer))
        try:
            await Browser().run(SCRIPT, url=url, folder=folder, seconds=SECONDS, timeout=SECONDS + 60)
        finally:
            using.cancel()
            await asyncio.wait({using})


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]).resolve()))
