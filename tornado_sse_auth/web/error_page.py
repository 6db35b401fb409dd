"""The page that a person sees when a sign-in cannot go on. No script; whatever is shown is escaped."""

from __future__ import annotations

from html import escape

__all__ = ["error_page", "page_policy"]

_STYLE = """
:root { color-scheme: light dark; }
body { margin: 0; min-height: 100vh; display: grid; place-items: center; padding: 1rem;
  font: 1rem/1.5 system-ui, sans-serif; }
main { max-width: 30rem; }
h1 { font-size: 1.4rem; }
small { opacity: .75; }
"""


def page_policy(nonce: str) -> str:
    """The content security policy of the page; `nonce` is that of its style."""
    return f"default-src 'none'; style-src 'nonce-{nonce}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


def error_page(text: str, *, request_id: str, again: str, nonce: str) -> bytes:
    """HTML. `again` is the path on which to start anew."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>Sign-in failed</title><style nonce="{escape(nonce)}">{_STYLE}</style></head>'
        f"<body><main><h1>The sign-in did not succeed</h1><p>{escape(text)}</p>"
        f'<p><a href="{escape(again)}">Start again</a></p>'
        f"<p><small>Request {escape(request_id)}</small></p></main></body></html>"
    ).encode()
