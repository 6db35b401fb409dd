"""The page `/` and its static files, under a strict content security policy."""

from __future__ import annotations

from pathlib import Path

from tornado.web import RequestHandler, StaticFileHandler

from tornado_sse_auth.web.handler import ErrorAnswers

__all__ = ["STATIC", "PageHandler", "StaticHandler"]

STATIC = Path(__file__).parent / "static"

# Only files of ours, no inline script or style, nothing from another host, in nobody's frame.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "font-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)


class PageHandler(ErrorAnswers, RequestHandler):
    """The page. It holds nothing of anybody's: what it shows it fetches."""

    def prepare(self) -> None:
        """Anybody may see it, under the server's own name."""
        self.identify_request()
        self.redirect_loopback_page()
        self.set_header("Content-Security-Policy", POLICY)
        self.set_header("Referrer-Policy", "same-origin")
        self.set_header("X-Frame-Options", "DENY")

    def get(self) -> None:
        """HTML."""
        self.finish((STATIC / "index.html").read_bytes())


class StaticHandler(StaticFileHandler):
    """Scripts, styles and pictures."""

    def set_extra_headers(self, path: str) -> None:
        """Types are not guessed; a new version is asked for each time."""
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Cache-Control", "no-cache")
