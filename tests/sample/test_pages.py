"""The sample's pages as a person uses them, in a real browser against the real server."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from authlib.oauth2.rfc7636 import create_s256_code_challenge

from sample_server.dashboard import SCOPE
from sample_server.demo_session import demo_bearer
from tests.parts.browser import Browser
from tests.parts.node import find_packages
from tests.sample.sample_page import sample_page

ACCESS_TTL = 5.0

# By clicks: to the demo provider, there as its first user, and back.
SIGN_IN = """
const hosts = new Set();
page.on('request', (request) => hosts.add(new URL(request.url()).host));
let provider;
const asked = () => [...hosts].filter((host) => host !== provider);
const signIn = async (path) => {
  await page.goto(params.url + path);
  await page.click('#sign-in');
  await page.waitForURL((url) => !url.href.startsWith(params.url));
  provider = new URL(page.url()).host;
  await page.locator('button').first().click();
  await page.waitForURL((url) => url.href.startsWith(params.url));
};
const text = (selector) => page.textContent(selector);
const texts = (selector) => page.locator(selector).allTextContents();
const until = (selector, wanted) => page.locator(selector, { hasText: wanted }).first().waitFor();
const counted = (selector, least) => page.waitForFunction(
  ([what, number]) => Number(document.querySelector(what).textContent) >= number, [selector, least]);
const audit = async () => {
  const found = [];
  for (const colorScheme of ['light', 'dark']) {
    await page.emulateMedia({ colorScheme, reducedMotion: 'reduce' });
    // By the debugger, which the page's policy does not concern.
    await page.evaluate(process.getBuiltinModule('node:fs').readFileSync(params.axe, 'utf8'));
    const { violations } = await page.evaluate(() => window.axe.run(document, { resultTypes: ['violations'] }));
    for (const { id, impact, nodes } of violations) found.push(`${colorScheme} ${impact} ${id}: ${nodes[0].html}`);
  }
  return found;
};
"""


@pytest.fixture
async def url() -> AsyncIterator[str]:
    async with sample_page(access_token_ttl=ACCESS_TTL) as url:
        yield url


@pytest.fixture
def axe(browser: Browser) -> Path:
    """axe-core, which finds what keeps people from using a page; it lies among the packages that the browser needs."""
    return find_packages() / "node_modules" / "axe-core" / "axe.min.js"


async def test_a_stream_is_watched_over_two_refreshes(browser: Browser, url: str) -> None:
    """Sign in by clicks, watch the countdown jump twice, publish, see it arrive, sign out; no other host is asked."""
    seen = await browser.run(
        SIGN_IN
        + """
        await signIn('/');
        await page.waitForSelector('#lamp[data-state="open"]');
        const name = await text('#you-name');
        await counted('#token-refreshes', 2);
        await page.fill('#publish-text', '{"text": "seen by everybody"}');
        await page.click('#publish-send');
        await until('#log .kind-message', 'seen by everybody');
        const refreshes = await page.locator('#log .kind-refresh').count();
        await page.click('#sign-out');
        await page.waitForSelector('#welcome:not([hidden])');
        return { name, refreshes, hosts: asked() };
        """,
        url=url,
        timeout=90,
    )
    assert seen["name"] == "Ada Lovelace"
    assert seen["refreshes"] >= 2
    assert seen["hosts"] == [url.removeprefix("http://")]
    assert [line for line in seen["console"] if "error" in line and "401" not in line] == []


async def test_the_dashboard_shows_what_happens(browser: Browser, url: str, caplog: pytest.LogCaptureFixture) -> None:
    """Its own stream, the refreshes of its own session, targets, health, and the viewer's audit lines."""
    caplog.set_level(logging.INFO, logger="tornado_sse_auth.audit")
    seen = await browser.run(
        SIGN_IN
        + """
        await signIn('/dashboard');
        await counted('#refreshes-success', 1);
        await until('#audit td', 'refresh');
        const canvases = await page.locator('canvas').all();
        return {
          streams: await text('#streams'),
          targets: await texts('.target h3'),
          checks: await texts('#checks [data-status="pass"] span:first-child'),
          audit: await texts('#audit td:nth-child(2)'),
          due: await text('#due-note'),
          drawn: await Promise.all(canvases.map((canvas) => canvas.evaluate(({ width }) => width > 0))),
          hosts: asked(),
        };
        """,
        url=url,
        timeout=90,
    )
    assert seen["streams"] == "1"
    assert seen["targets"] == ["Session validation", "Token refresh", "Store look-up", "Provider check"]
    assert {"store", "provider"} <= set(seen["checks"])
    assert {"sign-in", "refresh"} <= set(seen["audit"])
    assert seen["due"] == "1 session in 10 minutes"
    assert seen["drawn"] == [True] * 8
    assert seen["hosts"] == [url.removeprefix("http://")]
    assert [line for line in seen["console"] if "error" in line and "401" not in line] == []


async def test_both_pages_can_be_used_by_everybody(browser: Browser, url: str, axe: Path) -> None:
    """axe-core finds no violation, signed out and in, light and dark; a phone's width needs no sideways scrolling."""
    seen = await browser.run(
        SIGN_IN
        + """
        const found = {};
        await page.goto(params.url);
        await page.waitForSelector('#welcome:not([hidden])');
        found.welcome = await audit();
        await signIn('/');
        await counted('#token-ticks', 1);
        found.stream = await audit();
        await page.goto(params.url + '/dashboard');
        await counted('#streams', 1);
        found.dashboard = await audit();
        await page.setViewportSize({ width: 360, height: 740 });
        const overflow = {};
        for (const path of ['/', '/dashboard']) {
          await page.goto(params.url + path);
          await page.waitForSelector('#desk:not([hidden]), #board:not([hidden])');
          overflow[path] = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
        }
        return { found, overflow };
        """,
        url=url,
        axe=axe,
        timeout=90,
    )
    assert seen["found"] == {"welcome": [], "stream": [], "dashboard": []}
    assert max(seen["overflow"].values()) <= 0


async def test_the_dashboard_asks_for_its_scope() -> None:
    """Away from the demo provider not everybody may look."""
    async with sample_page(access_token_ttl=ACCESS_TTL, watchers=frozenset((SCOPE,))) as url:
        bearer = await demo_bearer(url)
        async with httpx.AsyncClient() as client:
            answer = await client.get(f"{url}/dashboard/events", headers={"Authorization": f"Bearer {bearer.reveal()}"})
    assert (answer.status_code, answer.json()["error"]) == (403, "insufficient_scope")
    assert f'scope="{SCOPE}"' in answer.headers["WWW-Authenticate"]


async def test_a_program_is_allowed_and_ended_again(browser: Browser, url: str, axe: Path) -> None:
    """On the consent page, which everybody can use; then it is in the list of sessions, and is ended there."""
    verifier = "v" * 43
    seen = await browser.run(
        SIGN_IN
        + """
        await signIn('/');
        const post = (path, options) => context.request.post(params.url + path, options);
        const redirect = `${params.url}/`;
        const metadata = { client_name: 'Editor', redirect_uris: [redirect], token_endpoint_auth_method: 'none' };
        const { client_id } = await (await post('/oauth/register', { data: metadata })).json();
        const query = new URLSearchParams({ client_id, redirect_uri: redirect, response_type: 'code',
          code_challenge: params.challenge, code_challenge_method: 'S256', scope: 'content:read' });
        await page.goto(`${params.url}/oauth/authorize?${query}`);
        const consent = await text('main');
        const violations = await audit();
        await page.click('button[value=allow]');
        await page.waitForURL((url) => url.searchParams.has('code'));
        const code = new URL(page.url()).searchParams.get('code');
        const form = { client_id, grant_type: 'authorization_code', code, code_verifier: params.verifier };
        const tokens = await (await post('/oauth/token', { form })).json();
        await page.goto(params.url);
        await until('.grant', 'Editor');
        const facts = await text('.grant .session-facts');
        await page.click('.grant button');
        await page.waitForFunction(() => document.querySelector('.grant') === null);
        const again = { client_id, grant_type: 'refresh_token', refresh_token: tokens.refresh_token };
        const refused = await (await post('/oauth/token', { form: again })).json();
        const sessions = await page.locator('.session-list li').count();
        return { consent, violations, facts, refused: refused.error, sessions };
        """,
        url=url,
        axe=axe,
        verifier=verifier,
        challenge=create_s256_code_challenge(verifier),
    )
    assert "search and read the content" in seen["consent"]
    assert seen["violations"] == []
    assert "content:read" in seen["facts"]
    assert seen["refused"] == "invalid_grant"
    assert seen["sessions"] == 1


async def test_a_page_that_finds_the_server_down_asks_less_and_less(browser: Browser, url: str) -> None:
    """REL-18: however often its tab is looked at meanwhile, there is one wait, and each is longer than the one before;
    and a name that is no text keeps nobody out."""
    seen = await browser.run(
        SIGN_IN
        + """
        await signIn('/');
        await counted('#token-ticks', 1);
        await page.clock.install();
        let calls = 0, down = true;
        await page.route('**/me', async (route) => {
          calls += 1;
          if (down) return route.fulfill({ status: 503, json: { error: 'store_unavailable' } });
          const me = await (await route.fetch()).json();
          return route.fulfill({ json: { ...me, claims: { name: 5, email: { a: 1 } } } });
        });
        await page.goto(params.url);
        await page.waitForSelector('#notice:not([hidden])');
        for (let look = 0; look < 5; look += 1) {
          const before = calls;
          await page.evaluate(() => document.dispatchEvent(new Event('visibilitychange')));
          while (calls === before) await page.waitForTimeout(20);
          await page.waitForTimeout(50);
        }
        const looked = calls;
        for (let second = 0; second < 120; second += 1) {
          await page.clock.runFor(1000);
          await page.waitForTimeout(5);
        }
        const waited = calls - looked;
        down = false;
        await page.clock.runFor(40_000);
        await page.waitForSelector('#desk:not([hidden])');
        return { looked, waited, name: await text('#you-name'), hidden: await page.isHidden('#notice') };
        """,
        url=url,
        timeout=90,
    )
    assert seen["looked"] == 6
    assert 2 <= seen["waited"] <= 12
    assert seen["name"]
    assert seen["hidden"]


async def test_nothing_of_the_last_user_comes_after_them(
    browser: Browser, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """SEC-09: not in the pages, not in an answer that was under way when they signed out."""
    caplog.set_level(logging.INFO, logger="tornado_sse_auth.audit")
    seen = await browser.run(
        SIGN_IN
        + """
        await signIn('/');
        await until('.session-list li', 'this one');
        const claims = await text('#you-claims');
        const dashboard = await context.newPage();
        await dashboard.goto(params.url + '/dashboard');
        await dashboard.locator('#audit tr').first().waitFor();
        const held = [];
        for (const path of ['**/auth/token', '**/auth/sessions', '**/publish']) {
          await page.route(path, async (route) => {
            const response = await route.fetch();
            await new Promise((resolve) => held.push(resolve));
            await route.fulfill({ response });
          });
        }
        await page.click('#bearer-make');
        await page.click('#sessions-reload');
        await page.fill('#publish-text', '{"secret": "of the last user"}');
        await page.click('#publish-send');
        while (held.length < 3) await page.waitForTimeout(20);
        await page.click('#sign-out');
        await page.waitForSelector('#welcome:not([hidden])');
        const answers = ['token', 'sessions', 'publish'].map((path) => page.waitForResponse('**/' + path));
        for (const go of held) go();
        await Promise.all(answers);
        await page.waitForTimeout(200);
        await dashboard.waitForSelector('#welcome:not([hidden])');
        const lines = await dashboard.textContent('#audit');
        const left = await page.evaluate(() => {
          const gone = (id) => document.getElementById(id).textContent.trim();
          const ids = ['you-claims', 'you-name', 'bar-name', 'you-id', 'you-session', 'sessions', 'bearer-command',
            'bearer-result', 'publish-result', 'log'];
          return [...ids.map(gone), document.getElementById('publish-text').value];
        });
        return { claims, left, audit: lines };
        """,
        url=url,
        timeout=90,
    )
    assert "demo" in seen["claims"] or "name" in seen["claims"]
    assert seen["audit"].strip() == ""
    assert seen["left"] == [""] * 10 + ['{"text": "Hello, stream!"}']
