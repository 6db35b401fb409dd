"""The pages and their static files, each under a strict content security policy."""

from __future__ import annotations

import secrets
from functools import cache
from html import escape
from importlib import resources
from pathlib import Path
from typing import ClassVar

from tornado.web import RequestHandler, StaticFileHandler

from tornado_sse_auth.web.handler import ErrorAnswers

__all__ = ["STATIC", "ChartLibraryHandler", "DashboardHandler", "PageHandler", "StaticHandler"]

STATIC = Path(__file__).parent / "static"

# No inline script or style, nothing from another host, in nobody's frame; scripts only with this answer's nonce, which
# the modules that they import inherit.
PAGE_POLICY = (
    "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; img-src 'self' data:; "
    "connect-src 'self'; font-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
# Opened by themselves, files of a page (a picture with a script in it, the page without its nonce) do nothing.
FILE_POLICY = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


class PageHandler(ErrorAnswers, RequestHandler):
    """A page. It holds nothing of anybody's: what it shows it fetches. In its file `{nonce}` stands for the nonce and
    `{url}` for the server's own origin."""

    page: ClassVar[str] = "index.html"
    """The name of its file in `static`."""

    def prepare(self) -> None:
        """Anybody may see it, under the server's own name."""
        self.identify_request()
        self.redirect_loopback_page()
        self._nonce = secrets.token_urlsafe(16)
        self.set_header("Content-Security-Policy", PAGE_POLICY.format(nonce=self._nonce))
        self.set_header("Referrer-Policy", "same-origin")
        self.set_header("X-Frame-Options", "DENY")

    def get(self) -> None:
        """HTML."""
        source = (STATIC / self.page).read_text(encoding="utf-8")
        url = escape(self.sse_auth.options.public_url)
        self.finish(source.replace("{nonce}", self._nonce).replace("{url}", url))


class DashboardHandler(PageHandler):
    """The page `/dashboard`."""

    page = "dashboard.html"


class StaticHandler(ErrorAnswers, StaticFileHandler):
    """Scripts, styles and pictures."""

    sign_in_redirect = False

    def prepare(self) -> None:
        """Anybody may have them."""
        self.identify_request()
        self.set_header("Content-Security-Policy", FILE_POLICY)

    def compute_etag(self) -> str | None:
        """Of the file: it is the same for everybody."""
        return StaticFileHandler.compute_etag(self)

    def set_extra_headers(self, path: str) -> None:
        """A new version is asked for each time."""
        self.set_header("Cache-Control", "no-cache")


@cache
def _chart_library() -> bytes:
    folder = resources.files("chartkick") / "django" / "static" / "chartkick"  # a folder, not a module: no Django here
    return (folder / "Chart.bundle.js").read_bytes()


class ChartLibraryHandler(ErrorAnswers, RequestHandler):
    """Chart.js, as the package chartkick brings it: no page loads anything from another host."""

    sign_in_redirect = False

    def prepare(self) -> None:
        """Anybody may have it."""
        self.identify_request()
        self.set_header("Content-Security-Policy", FILE_POLICY)

    def get(self) -> None:
        """The library; a day in the browser's cache."""
        self.set_header("Cache-Control", "public, max-age=86400")
        self.set_header("Content-Type", "text/javascript; charset=utf-8")
        self.finish(_chart_library())
