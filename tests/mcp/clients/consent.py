"""The person in front of a client: signs in at the provider and presses a button of the consent page."""

from __future__ import annotations

import re
from collections.abc import Iterable
from html import unescape
from urllib.parse import urlsplit

import httpx

_FORM = re.compile(r"<form\b[^>]*>.*?</form>", re.DOTALL)
_HIDDEN = re.compile(r'<input type="hidden" name="([^"]+)" value="([^"]*)"')
_MAX_STEPS = 25


async def follow_to_consent(
    browser: httpx.AsyncClient, authorize_url: str, account: str, *, hosts: Iterable[str]
) -> httpx.Response:
    """The consent page, or the first redirect away from `hosts` (netlocs of server and provider)."""
    url = httpx.URL(authorize_url).copy_merge_params({"login_hint": account})
    known = frozenset(hosts)
    for _ in range(_MAX_STEPS):
        response = await browser.get(url, headers={"Accept": "text/html", "Sec-Fetch-Mode": "navigate"})
        if not response.has_redirect_location:
            return response
        url = response.url.join(response.headers["location"])
        if url.netloc.decode() not in known:
            return response
    raise AssertionError(f"more than {_MAX_STEPS} redirects, the last to {url.path}")


def consent_form(page: httpx.Response) -> dict[str, str]:
    """The hidden fields of the page's one form."""
    assert page.status_code == 200, f"{page.status_code} {page.text[:1000]}"
    (form,) = _FORM.findall(page.text)
    assert '<form method="post" action="/oauth/authorize">' in form
    assert 'name="decision" value="allow"' in form
    assert 'name="decision" value="deny"' in form
    return {name: unescape(value) for name, value in _HIDDEN.findall(form)}


async def consent(authorize_url: str, account: str, *, server: str, provider: str, decision: str = "allow") -> str:
    """Do all of it in a new browser; the redirect with which the client gets its answer, not yet followed."""
    hosts = [urlsplit(server).netloc, urlsplit(provider).netloc]
    async with httpx.AsyncClient(trust_env=False, timeout=30) as browser:
        page = await follow_to_consent(browser, authorize_url, account, hosts=hosts)
        if page.has_redirect_location:
            raise AssertionError(f"no consent page: {page.headers['location']}")
        answered = await browser.post(
            f"{server}/oauth/authorize",
            data=consent_form(page) | {"decision": decision},
            headers={"Origin": server, "Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "navigate"},
        )
    assert answered.has_redirect_location, f"{answered.status_code} {answered.text[:1000]}"
    return str(answered.headers["location"])
