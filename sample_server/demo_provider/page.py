"""The page on which a demo user is chosen. No script; everything that came from outside is escaped."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from .users import DemoUser

__all__ = ["choice_page", "error_page"]

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2330; --paper: #f4f5f8; --card: #fff; --line: #d4d9e2; --quiet: #566074;
  --strong: #2747c9; --warn-ink: #6b4200; --warn: #fff3d6; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8ebf2; --paper: #12151c; --card: #1b2029; --line: #343c4b;
  --quiet: #a3adbf; --strong: #9db1ff; --warn-ink: #ffdc9a; --warn: #3a2c10; } }
* { box-sizing: border-box; }
body { margin: 0; min-height: 100vh; display: grid; place-items: center; padding: 1rem; background: var(--paper);
  color: var(--ink); font: 1rem/1.5 system-ui, sans-serif; }
main { width: 100%; max-width: 27rem; background: var(--card); border: 1px solid var(--line); border-radius: 1rem;
  padding: 1.75rem; }
h1 { font-size: 1.35rem; margin: 0 0 .25rem; }
p { margin: .25rem 0 1rem; color: var(--quiet); }
.warn { background: var(--warn); color: var(--warn-ink); border-radius: .6rem; padding: .6rem .8rem; font-size: .9rem; }
form { display: grid; gap: .6rem; margin-top: 1.25rem; }
button { display: flex; justify-content: space-between; align-items: center; gap: 1rem; width: 100%; text-align: left;
  padding: .8rem 1rem; border: 1px solid var(--line); border-radius: .7rem; background: none; color: inherit;
  font: inherit; cursor: pointer; }
button:hover, button:focus-visible { border-color: var(--strong); outline: 2px solid var(--strong);
  outline-offset: 1px; }
button small { display: block; color: var(--quiet); }
.level { border: 1px solid currentcolor; border-radius: 1rem; padding: 0 .6rem; font-size: .8rem;
  color: var(--strong); }
.free { color: var(--quiet); }
.deny { justify-content: center; color: var(--quiet); }
.asked { margin: 1.5rem 0 .25rem; }
ul { overflow-wrap: anywhere; margin: 0; padding-left: 1.2rem; color: var(--quiet); font-size: .9rem; }
"""


def choice_page(users: Iterable[DemoUser], *, request: str, client: str, scopes: Iterable[str], nonce: str) -> str:
    """Who are you today? `request` is the key of the pending request, `nonce` that of the style."""
    choices = "".join(
        f'<button name="user" value="{escape(user.subject)}"><span>{escape(user.name)}'
        f"<small>{escape(user.about)}</small></span>"
        f'<span class="level {escape(user.subscription)}">{escape(user.subscription)}</span></button>'
        for user in users
    )
    asked = "".join(f"<li>{escape(scope)}</li>" for scope in scopes)
    return _page(
        "Sign in to the demo",
        f"<p>Choose who you want to be for <strong>{escape(client)}</strong>.</p>"
        '<p class="warn">This is a demonstration: nobody asks for a password here.</p>'
        f'<form method="post" action="/authorize"><input type="hidden" name="request" value="{escape(request)}">'
        f'{choices}<button class="deny" name="user" value="">Cancel</button></form>'
        f'<p class="asked">It asks for</p><ul>{asked}</ul>',
        nonce,
    )


def error_page(text: str, *, nonce: str) -> str:
    """Why it cannot go on."""
    return _page("This sign-in cannot go on", f"<p>{escape(text)}</p>", nonce)


def _page(title: str, body: str, nonce: str) -> str:
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{escape(title)}</title><style nonce="{escape(nonce)}">{_STYLE}</style></head>'
        f"<body><main><h1>{escape(title)}</h1>{body}</main></body></html>"
    )
