"""A bearer of a demo user for the terminal: a whole sign-in at the demo provider, played over HTTP."""

from __future__ import annotations

import httpx

from tornado_sse_auth import Secret

__all__ = ["demo_bearer"]

DEMO_USER = "ada"
BEARER_TTL = 86_400


async def demo_bearer(url: str, user: str = DEMO_USER) -> Secret:
    """Sign `user` in at the running server `url` as a browser does, and make a bearer with the cookie. Raises
    `httpx.HTTPError` where one of the steps fails."""
    async with httpx.AsyncClient(timeout=10.0, trust_env=False, follow_redirects=True) as browser:
        signed_in = await browser.get(f"{url}/auth/login", params={"login_hint": user, "return_to": "/me"})
        signed_in.raise_for_status()
        made = await browser.post(
            f"{url}/auth/token",
            json={"grant": "session", "expires_in": BEARER_TTL},
            headers={"Origin": url},
        )
        made.raise_for_status()
        return Secret(made.json()["access_token"])
