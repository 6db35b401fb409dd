"""A client's request for a grant: checked, kept while its user signs in and decides, answered with a redirect. Pure."""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

from authlib.oauth2.rfc7636.challenge import CODE_CHALLENGE_PATTERN

from ..errors import InvalidRequestError
from ..identity import Secret
from .clients import Client
from .errors import UnsupportedResponseTypeError
from .redirect_uris import is_registered
from .resources import Resources

__all__ = [
    "AuthorizationRequest",
    "check_redirect",
    "csrf_token",
    "read_request",
    "redirect_location",
    "sent_to_sign_in",
]

MAX_STATE = 4096
MAX_LOGIN_HINT = 256
PROMPTS = frozenset({"login", "consent", "select_account", "none"})
# What an answer consists of: a redirect URI that has one of these in its query does not add to it.
ANSWER = frozenset({"code", "state", "iss", "error", "error_description", "error_uri"})


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorizationRequest:
    """A checked request (RFC 6749, section 4.1.1; RFC 7636; RFC 8707). `scopes`: None where the client leaves it to us.

    `browser` is the SHA-256 of the value in the cookie of the browser that brought it. `trips`: how often its user was
    sent to the provider, the last time at `sent_at` (epoch seconds); `stepped_up`: once for the scopes that the session
    lacked.
    """

    client_id: str
    client_name: str
    client_uri: str | None
    refreshes: bool
    redirect_uri: str
    state: str | None
    challenge: str
    audience: tuple[str, ...]
    scopes: frozenset[str] | None
    prompts: frozenset[str]
    login_hint: str | None
    browser: bytes
    trips: int = 0
    sent_at: float = 0.0
    stepped_up: bool = False

    @property
    def client(self) -> Client:
        """The client as far as a grant needs it: as it was when it asked."""
        return Client(
            id=self.client_id, redirect_uris=(self.redirect_uri,), name=self.client_name, refreshes=self.refreshes
        )

    def to_record(self) -> dict[str, Any]:
        """A JSON-able mapping."""
        return {
            **{name: getattr(self, name) for name in self.__slots__},
            "audience": list(self.audience),
            "scopes": None if self.scopes is None else sorted(self.scopes),
            "prompts": sorted(self.prompts),
            "browser": self.browser.hex(),
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> AuthorizationRequest:
        """What `to_record` made."""
        return cls(
            **{
                **record,
                "audience": tuple(record["audience"]),
                "scopes": None if record["scopes"] is None else frozenset(record["scopes"]),
                "prompts": frozenset(record["prompts"]),
                "browser": bytes.fromhex(record["browser"]),
            }
        )


def check_redirect(client: Client, redirect_uri: str | None) -> str:
    """The redirect URI of a request. Raises `InvalidRequestError`: nobody may be sent to another one, with an error
    either (RFC 6749, section 4.1.2.1)."""
    if redirect_uri is None:
        raise InvalidRequestError("The application did not say where to send you back to.")
    if not is_registered(redirect_uri, client.redirect_uris):
        raise InvalidRequestError(
            "The application wants you sent to an address that it has not registered.",
            reason=f"client {client.id[:200]!r}, redirect_uri {redirect_uri[:200]!r}",
        )
    return redirect_uri


def read_request(
    query: Mapping[str, str], client: Client, redirect_uri: str, resources: Resources, *, browser: Secret
) -> AuthorizationRequest:
    """The rest of a request, once client and redirect are known to be right. Raises the errors of RFC 6749, section
    4.1.2.1, and RFC 8707."""
    if query.get("response_type") != "code":
        raise UnsupportedResponseTypeError()
    if query.get("response_mode", "query") != "query":
        raise InvalidRequestError("response_mode is query.")
    challenge = query.get("code_challenge", "")
    if query.get("code_challenge_method") != "S256" or not CODE_CHALLENGE_PATTERN.fullmatch(challenge):
        raise InvalidRequestError("PKCE with S256 is needed (RFC 7636).")
    state = query.get("state")
    if state is not None and len(state) > MAX_STATE:
        raise InvalidRequestError("state is too long.")
    audience = resources.audience(query.get("resource"))
    scopes = resources.requested(query.get("scope"))
    prompts = frozenset(query.get("prompt", "").split())
    if not prompts <= PROMPTS or ("none" in prompts and len(prompts) > 1):
        raise InvalidRequestError("prompt is malformed.")
    login_hint = query.get("login_hint", "")
    usable = 0 < len(login_hint) <= MAX_LOGIN_HINT and login_hint.isprintable()
    return AuthorizationRequest(
        client_id=client.id,
        client_name=client.name,
        client_uri=client.uri,
        refreshes=client.refreshes,
        redirect_uri=redirect_uri,
        state=state,
        challenge=challenge,
        audience=audience,
        scopes=scopes,
        prompts=prompts,
        login_hint=login_hint if usable else None,
        browser=browser.digest(),
    )


def redirect_location(redirect_uri: str, parameters: Mapping[str, str | None]) -> str:
    """The redirect URI with an answer in its query; what it has there already stays, but for names of an answer."""
    base, _, query = redirect_uri.partition("?")
    kept = [(name, value) for name, value in parse_qsl(query, keep_blank_values=True) if name not in ANSWER]
    added = [(name, value) for name, value in parameters.items() if value is not None]
    return f"{base}?{urlencode([*kept, *added], quote_via=quote)}"


def csrf_token(browser: Secret, request_id: str, session_id: str, scopes: Iterable[str]) -> str:
    """What the form must bring along with the browser's cookie: for this request, and the account and the scopes that
    were shown."""
    shown = json.dumps([request_id, session_id, sorted(scopes)])
    digest = hmac.digest(browser.reveal().encode(), shown.encode(), sha256)
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def sent_to_sign_in(request: AuthorizationRequest, *, now: float, stepped_up: bool) -> AuthorizationRequest:
    """The request once its user is on the way to the provider."""
    return replace(request, trips=request.trips + 1, sent_at=now, stepped_up=request.stepped_up or stepped_up)
