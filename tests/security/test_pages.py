"""The pages in a real browser, under attack: what is published on them, framed, or opened by itself runs nothing."""

from __future__ import annotations

import httpx

from tests.parts.browser import Browser
from tests.sample.sample_page import sample_page

NOTES = """
const violations = [], dialogs = [];
page.on('console', (message) => {
  if (/Content Security Policy|Refused to/.test(message.text())) violations.push(message.text());
});
page.on('dialog', (dialog) => { dialogs.push(dialog.message()); dialog.dismiss(); });
"""

SIGNED_IN = """
await page.goto(params.url);
await page.click('#sign-in');
await page.waitForURL((url) => !url.href.startsWith(params.url));
const provider = page.url();
await page.locator('button').first().click();
await page.waitForURL((url) => url.href.startsWith(params.url));
"""

# What people publish is text, and the scripts of the page are ours alone, with and without a nonce that was seen.
INJECTED = """
const own = page.url();
await page.waitForSelector('#lamp[data-state="open"]');  // a stream that begins hears what is published from then on
for (const text of params.texts) {
  await page.evaluate(async ([text]) => fetch('/publish', {
    method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(text) }), [text]);
  await page.locator('#log .text', { hasText: text.slice(0, 12) }).first().waitFor();
}
const before = violations.length;
const ran = await page.evaluate(async () => {
  document.body.insertAdjacentHTML('beforeend', '<img src=x onerror="window.ran = 1"><b style="color:red">x</b>');
  const script = document.createElement('script');
  script.textContent = 'window.ran = 2';
  document.body.append(script);
  const foreign = document.createElement('script');
  foreign.src = '/static/app.js';
  document.body.append(foreign);
  await new Promise((resolve) => setTimeout(resolve, 300));
  return window.ran ?? 0;
});
const markup = await page.locator('#log img').count();
return { own, provider, dialogs, before, after: violations.length, ran, markup };
"""

FRAMED = """
const frames = {};
for (const url of params.urls) {
  await page.goto('about:blank');
  await page.setContent(`<iframe id="f" src="${url}" width="400" height="300"></iframe>`);
  const frame = await (await page.waitForSelector('#f')).contentFrame();
  await frame.waitForLoadState('load').catch(() => {});
  const shown = await frame.evaluate('document.body.innerText').catch(() => '');
  frames[url] = frame.url().startsWith('chrome-error') ? '' : shown;
}
return { frames, violations };
"""

TEXTS = [
    "<img src=x onerror=alert(1)>",
    "<script>alert(2)</script>",
    "</code><svg onload=alert(3)>",
    "javascript:alert(4)",
    "{{constructor.constructor('alert(5)')()}}",
]


async def test_nothing_that_is_published_runs(browser: Browser) -> None:
    """SEC-06, SEC-12: markup that somebody publishes is shown as text; even where it got into the page its policy lets
    it do nothing. The pages themselves break no rule of it, and no nonce comes twice."""
    async with sample_page(access_token_ttl=60) as url:
        seen = await browser.run(NOTES + SIGNED_IN + INJECTED, url=url, texts=TEXTS)
        assert seen["own"].startswith(url)
        assert not seen["provider"].startswith(url)
        assert (seen["dialogs"], seen["before"], seen["markup"], seen["ran"]) == ([], 0, 0, 0)
        assert seen["after"] >= 3
        async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
            policies = [(await client.get("/")).headers["Content-Security-Policy"] for _ in range(5)]
            assert len(set(policies)) == 5
            for path in ("/", "/dashboard"):
                page = await client.get(path)
                assert "unsafe" not in page.headers["Content-Security-Policy"]
                assert "{nonce}" not in page.text
            for path in ("/static/index.html", "/static/icon.svg", "/static/app.js", "/static/nothing"):
                answer = await client.get(path)
                assert answer.headers["Content-Security-Policy"].startswith(("default-src 'none'", "frame-ancestors"))
                assert answer.headers["X-Content-Type-Options"] == "nosniff"


async def test_no_page_can_be_framed(browser: Browser) -> None:
    """SEC-06, SEC-31: the pages, the refusals and the answers to scripts, in a frame of another page: nothing is
    shown."""
    async with sample_page(access_token_ttl=60) as url:
        paths = ["/", "/dashboard", "/me", "/auth/callback?state=x&code=y", "/static/index.html", "/livez"]
        urls = [f"{url}{path}" for path in paths]
        seen = await browser.run(NOTES + FRAMED, urls=[*urls, "data:text/html,shown"])
        assert seen["frames"] == {**dict.fromkeys(urls, ""), "data:text/html,shown": "shown"}
