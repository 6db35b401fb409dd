"""The pages that a person sees on the way of a client's request. No script; whatever is shown is escaped."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from html import escape

__all__ = ["Consent", "consent_page", "page_policy", "refusal_page"]

_STYLE = """
:root { color-scheme: light dark; }
html { background: Canvas; color: CanvasText; }
body { margin: 0; min-height: 100vh; display: grid; place-items: center; font: 1rem/1.5 system-ui, sans-serif; }
main { max-width: 30rem; padding: 1rem; overflow-wrap: anywhere; }
h1 { font-size: 1.4rem; }
dt { font-size: .85rem; opacity: .75; }
dd { margin: 0 0 .6rem; }
.warning { border-left: .25rem solid #d97706; padding-left: .75rem; }
form { display: flex; gap: .75rem; margin: 1.5rem 0; }
button { font: inherit; padding: .5rem 1.25rem; border-radius: .4rem; border: 1px solid currentColor; cursor: pointer; }
button[value=allow] { background: #1d4ed8; border-color: #1d4ed8; color: #fff; }
a { color: inherit; }
small { opacity: .75; }
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Consent:
    """What a user is asked. `scopes` are in words, `client_host` is where the client says it is from,
    `client_host_proven` whether it has shown that by a document there or the application names it, `redirect_host`
    where the answer goes; `redirect_warning` says what is to be minded about that. `other_account` is the path to sign
    in as somebody else."""

    client_name: str
    client_host: str | None
    client_host_proven: bool
    redirect_host: str
    redirect_warning: str | None
    account: str
    resources: tuple[str, ...]
    scopes: tuple[str, ...]
    request_id: str
    csrf: str
    other_account: str


def page_policy(nonce: str) -> str:
    """The content security policy of the pages; `nonce` is that of their style.

    There is no form-action: browsers apply it to the redirects that follow, and the button would lead nowhere.
    """
    return f"default-src 'none'; style-src 'nonce-{nonce}'; base-uri 'none'; frame-ancestors 'none'"


def consent_page(consent: Consent, *, nonce: str) -> bytes:
    """HTML with one form."""
    about = [("Account", consent.account)]
    if consent.client_host is not None:
        proven = "The application's site" if consent.client_host_proven else "It says that its site is"
        about.append((proven, consent.client_host))
    about += [("You will be sent to", consent.redirect_host), ("It gets access to", ", ".join(consent.resources))]
    warning = f'<p class="warning">{escape(consent.redirect_warning)}</p>' if consent.redirect_warning else ""
    scopes = "".join(f"<li>{escape(scope)}</li>" for scope in consent.scopes)
    allowed = f"<ul>{scopes}</ul>" if scopes else "<p>Nothing but knowing who you are.</p>"
    return _page(
        f"Allow {consent.client_name}?",
        f"<h1>Allow <em>{escape(consent.client_name)}</em> to use your account?</h1>{_list(about)}"
        f"<p>It will be able to:</p>{allowed}{warning}"
        '<form method="post" action="/oauth/authorize">'
        f'<input type="hidden" name="request" value="{escape(consent.request_id)}">'
        f'<input type="hidden" name="csrf" value="{escape(consent.csrf)}">'
        '<button name="decision" value="allow">Allow</button>'
        '<button name="decision" value="deny">Cancel</button></form>'
        f'<p><a href="{escape(consent.other_account)}">Use another account</a></p>'
        "<p><small>You can end this at any time in the list of your sessions.</small></p>",
        nonce=nonce,
    )


def refusal_page(text: str, *, reference: str, nonce: str) -> bytes:
    """HTML for a request that cannot be answered to the application. `reference` is the id of the HTTP request."""
    return _page(
        "This did not work",
        f"<h1>The application cannot be connected</h1><p>{escape(text)}</p>"
        "<p>Go back to the application and start again.</p>"
        f"<p><small>Request {escape(reference)}</small></p>",
        nonce=nonce,
    )


def _list(entries: Iterable[tuple[str, str]]) -> str:
    return f"<dl>{''.join(f'<dt>{escape(term)}</dt><dd>{escape(text)}</dd>' for term, text in entries)}</dl>"


def _page(title: str, content: str, *, nonce: str) -> bytes:
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{escape(title)}</title><style nonce="{escape(nonce)}">{_STYLE}</style></head>'
        f"<body><main>{content}</main></body></html>"
    ).encode()
