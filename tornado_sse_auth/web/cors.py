"""What pages of other origins may do: nothing, but for those that `allowed_origins` names (Fetch standard, CORS)."""

from __future__ import annotations

import re

from tornado.httputil import HTTPServerRequest

__all__ = ["cors_headers", "is_preflight", "preflight_headers"]

METHODS = "GET, POST, PUT, PATCH, DELETE"
EXPOSED = ("Retry-After", "WWW-Authenticate", "X-Request-ID")
PREFLIGHT_AGE = 600
_NAMES = re.compile(r"[A-Za-z0-9-]+(?: *, *[A-Za-z0-9-]+)*")


def cors_headers(origin: str, *exposed: str) -> dict[str, str]:
    """Headers of an answer that pages of `origin`, one of the allowed, may read; `exposed`: more headers for them."""
    return {
        "Access-Control-Allow-Origin": origin,
        "Access-Control-Allow-Credentials": "true",
        "Access-Control-Expose-Headers": ", ".join((*EXPOSED, *exposed)),
        "Vary": "Origin",
    }


def is_preflight(request: HTTPServerRequest) -> bool:
    """Whether a browser asks beforehand if it may send what a page wants to. Carries no credential by its nature."""
    return request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers


def preflight_headers(request: HTTPServerRequest) -> dict[str, str]:
    """The yes to a preflight of an allowed origin, whatever headers its page wants to send."""
    wanted = request.headers.get("Access-Control-Request-Headers", "")
    headers = {"Access-Control-Allow-Methods": METHODS, "Access-Control-Max-Age": str(PREFLIGHT_AGE)}
    if len(wanted) <= 1000 and _NAMES.fullmatch(wanted):
        headers["Access-Control-Allow-Headers"] = wanted
    return headers
