"""The consent page in a real browser: the buttons lead where they should, for every kind of redirect."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

import pytest
from tornado.web import Application, RequestHandler

from tests.authorization_server.kit import Installation, World
from tests.parts.browser import Browser as Chromium
from tests.parts.web_server import listening
from tornado_sse_auth.authorization_server import browser_handler

# What Chromium sets out for is seen also where nobody is at home, or no application has the scheme.
PRESS = """
const asked = [], refusals = [];
let news = () => {};
const devtools = await context.newCDPSession(page);
for (const domain of ['Network', 'Page']) await devtools.send(`${domain}.enable`);
devtools.on('Network.requestWillBeSent', (event) => { asked.push(event.request.url); news(); });
devtools.on('Page.frameRequestedNavigation', (event) => { asked.push(event.url); news(); });
page.on('console', (message) => {
  if (message.text().includes('form-action')) { refusals.push(message.text()); news(); }
});
await context.addCookies([{ name: params.cookie, value: params.value, url: params.origin }]);
await page.goto(params.url);
const shown = await page.locator('main').innerText();
const answered = () => asked.find((url) => url.startsWith(params.redirect)) ?? refusals[0];
const pressed = page.locator(`button[value=${params.decision}]`).click({ noWaitAfter: true });
while (answered() === undefined) await new Promise((resolve) => { news = resolve; });
await pressed;
return { shown, location: answered(), refusals, frames: page.frames().length };
"""


class Callback(RequestHandler):
    """A program on the user's machine; it has an answer to whatever a browser asks for, the page's icon included."""

    def get(self) -> None:
        self.write("You may close this page.")


async def press(here: World, browser: Chromium, client: Installation, decision: str) -> dict[str, Any]:
    """Open the page with a signed-in browser, and press."""
    alice = await here.signed_in()
    return await browser.run(
        PRESS,
        cookie=here.app.cookie,
        value=alice.http.cookies.get(here.app.cookie),
        origin=here.url,
        url=f"{here.url}/oauth/authorize?{urlencode(client.query())}",
        redirect=client.redirect_uri,
        decision=decision,
    )


@pytest.mark.parametrize("kind", ["loopback", "https", "private"])
async def test_the_button_works(here: World, browser: Chromium, kind: str) -> None:
    """SEC-34: Chromium follows the redirect after the form, to wherever the client is; no policy is in its way."""
    async with listening(Application([(r"/.*", Callback)])) as program:
        redirects = {
            "loopback": f"{program}/callback",
            "https": "https://app.example/callback",
            "private": "cursor://anysphere.cursor-mcp/oauth/callback",
        }
        client = Installation(here, redirect_uri=redirects[kind])
        await client.register()
        seen = await press(here, browser, client, "allow")
        assert "alice@users.example" in seen["shown"]
        assert seen["refusals"] == []
        code = seen["location"].partition("?code=")[2].partition("&")[0]
        response = await client.exchange(code)
        assert response.status_code == 200
        if kind == "private":
            denied = await press(here, browser, client, "deny")
            assert denied["location"].startswith(f"{client.redirect_uri}?error=access_denied&")


async def test_what_form_action_would_do(here: World, browser: Chromium, monkeypatch: pytest.MonkeyPatch) -> None:
    """Why the policy has none: Chromium applies it to the redirect, and the button is dead."""
    policy = browser_handler.page_policy
    monkeypatch.setattr(browser_handler, "page_policy", lambda nonce: f"{policy(nonce)}; form-action 'self'")
    client = Installation(here, redirect_uri="https://app.example/callback")
    await client.register()
    seen = await press(here, browser, client, "allow")
    assert "form-action" in seen["location"]
    assert len(seen["refusals"]) == 1
