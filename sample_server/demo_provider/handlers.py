"""The provider's endpoints."""

from __future__ import annotations

import base64
import binascii
import json
import re
import secrets
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_plus, urlencode

from tornado.web import RequestHandler

from tornado_sse_auth import Secret

from .grants import AuthorizationRequest, InvalidGrant
from .page import choice_page, error_page
from .users import DEMO_USERS

if TYPE_CHECKING:
    from .provider import DemoProvider

__all__ = ["rules"]

CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}")
SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e ]{1,1000}")


class _Handler(RequestHandler):
    provider: DemoProvider

    def initialize(self, provider: DemoProvider) -> None:
        """`provider`: whose endpoint this is."""
        self.provider = provider

    def set_default_headers(self) -> None:
        """Nothing here is to be kept, framed or guessed at; errors neither."""
        self.set_header("Cache-Control", "no-store")
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
        self.set_header("Referrer-Policy", "no-referrer")

    def prepare(self) -> None:
        """Another Host is a name that somebody pointed at this machine: 421."""
        if f"http://{self.request.host}" != self.provider.issuer:
            self.answer({"error": "invalid_host"}, 421)

    def answer(self, document: Mapping[str, Any], status: int = 200) -> None:
        """JSON."""
        self.set_status(status)
        self.set_header("Content-Type", "application/json")
        self.finish(json.dumps(document))

    def single(self, source: Mapping[str, list[bytes]]) -> dict[str, str] | None:
        """Parameters that came once each, as text; None when one is repeated or no UTF-8 (RFC 6749, section 3.1)."""
        try:
            found = {name: value.decode() for name, (value,) in source.items()}
        except ValueError:
            return None
        return found


class MetadataHandler(_Handler):
    """Discovery."""

    def get(self) -> None:
        """The document."""
        self.answer(self.provider.metadata())


class KeySetHandler(_Handler):
    """The keys."""

    def get(self) -> None:
        """The key set."""
        self.answer(self.provider.key_set())


class AuthorizeHandler(_Handler):
    """The authorization endpoint. Until client and redirect are known to be right, errors stay on a page of ours."""

    def prepare(self) -> None:
        """A page with a style and a form, in nobody's frame. No form-action: browsers apply it to redirects too."""
        self.style_nonce = secrets.token_urlsafe(16)
        self.set_header(
            "Content-Security-Policy",
            f"default-src 'none'; style-src 'nonce-{self.style_nonce}'; base-uri 'none'; frame-ancestors 'none'",
        )
        super().prepare()

    def get(self) -> None:
        """Check the request; `login_hint` chooses a user unless `prompt` wants them to be asked; else a page asks."""
        query = self.single(self.request.query_arguments)
        if query is None:
            self._refuse("A parameter of this request is repeated or unreadable.")
            return
        if query.get("client_id") != self.provider.client_id:
            self._refuse("The application that sent you here is unknown.")
            return
        if query.get("redirect_uri") not in self.provider.redirect_uris:
            self._refuse("The address to return to is not registered.")
            return
        request = AuthorizationRequest(
            redirect_uri=query["redirect_uri"],
            scopes=frozenset(query.get("scope", "").split()),
            challenge=query.get("code_challenge", ""),
            state=query.get("state"),
            nonce=query.get("nonce"),
        )
        error = _objection(query)
        if error is not None:
            self._back(request, error=error)
            return
        hint = query.get("login_hint", "")
        prompts = query.get("prompt", "").split()
        if hint in DEMO_USERS and not {"login", "select_account"}.intersection(prompts):
            self._back(request, code=self.provider.grants.new_code(request, hint))
        elif "none" in prompts:
            self._back(request, error="login_required")
        else:
            self.finish(
                choice_page(
                    DEMO_USERS.values(),
                    request=self.provider.grants.ask(request),
                    client=self.provider.client_id,
                    scopes=sorted(request.scopes),
                    nonce=self.style_nonce,
                )
            )

    def post(self) -> None:
        """A user was chosen on the page."""
        form = self.single(self.request.body_arguments) or {}
        request = self.provider.grants.asked(form.get("request", ""))
        if request is None:
            self._refuse("This sign-in is unknown, used or too old. Start it again.")
        elif form.get("user") in DEMO_USERS:
            self._back(request, code=self.provider.grants.new_code(request, form["user"]))
        else:
            self._back(request, error="access_denied")

    def _refuse(self, text: str) -> None:
        self.set_status(400)
        self.finish(error_page(text, nonce=self.style_nonce))

    def _back(self, request: AuthorizationRequest, **answer: str) -> None:
        parameters = {**answer, "iss": self.provider.issuer}
        if request.state is not None:
            parameters["state"] = request.state
        separator = "&" if "?" in request.redirect_uri else "?"
        self.redirect(f"{request.redirect_uri}{separator}{urlencode(parameters)}", status=303)


def _objection(query: Mapping[str, str]) -> str | None:
    for name in ("request", "request_uri"):
        if name in query:
            return f"{name}_not_supported"
    if query.get("response_type") != "code":
        return "unsupported_response_type"
    prompts = query.get("prompt", "").split()
    if query.get("response_mode", "query") != "query" or ("none" in prompts and len(prompts) > 1):
        return "invalid_request"
    if query.get("code_challenge_method") != "S256" or not CHALLENGE.fullmatch(query.get("code_challenge", "")):
        return "invalid_request"
    if not SCOPE.fullmatch(query.get("scope", "")):
        return "invalid_scope"
    return None


class _ClientHandler(_Handler):
    """An endpoint for the client alone: `client_secret_basic` or `client_secret_post` (RFC 6749, section 2.3.1)."""

    def form(self) -> dict[str, str] | None:
        """The form of the authenticated client; None when an error was answered."""
        form = self.single(self.request.body_arguments)
        header = self.request.headers.get("Authorization")
        if form is None or (header is not None and "client_secret" in form):
            self.answer({"error": "invalid_request"}, 400)
            return None
        name, secret = (form.get("client_id", ""), form.get("client_secret", "")) if header is None else _basic(header)
        if name != self.provider.client_id or Secret(secret) != self.provider.client_secret:
            self.set_header("WWW-Authenticate", 'Basic realm="demo"')
            self.answer({"error": "invalid_client"}, 401)
            return None
        return form


def _basic(header: str) -> tuple[str, str]:
    scheme, _, encoded = header.partition(" ")
    try:
        name, _, secret = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return "", ""
    return (unquote_plus(name), unquote_plus(secret)) if scheme.lower() == "basic" else ("", "")


class TokenHandler(_ClientHandler):
    """The token endpoint."""

    def post(self) -> None:
        """A code or a refresh token for new tokens."""
        form = self.form()
        if form is None:
            return
        grants = self.provider.grants
        try:
            if form.get("grant_type") == "authorization_code":
                issued = grants.redeem(
                    form.get("code", ""),
                    redirect_uri=form.get("redirect_uri", ""),
                    verifier=form.get("code_verifier", ""),
                )
            elif form.get("grant_type") == "refresh_token":
                issued = grants.refresh(form.get("refresh_token", ""))
            else:
                self.answer({"error": "unsupported_grant_type"}, 400)
                return
        except InvalidGrant:
            self.answer({"error": "invalid_grant"}, 400)
            return
        self.answer(self.provider.token_answer(issued))


class RevocationHandler(_ClientHandler):
    """RFC 7009."""

    def post(self) -> None:
        """200, whatever the token was."""
        form = self.form()
        if form is None:
            return
        if "token" not in form:
            self.answer({"error": "invalid_request"}, 400)
            return
        self.provider.grants.revoke(form["token"])
        self.finish()


class UserinfoHandler(_Handler):
    """OpenID Connect Core, section 5.3."""

    def get(self) -> None:
        """The claims of the access token's user."""
        scheme, _, token = self.request.headers.get("Authorization", "").partition(" ")
        holder = self.provider.grants.holder(token) if scheme.lower() == "bearer" else None
        if holder is None:
            self.set_header("WWW-Authenticate", 'Bearer error="invalid_token"')
            self.answer({"error": "invalid_token"}, 401)
            return
        subject, scopes = holder
        self.answer({"sub": subject, **DEMO_USERS[subject].claims(scopes)})

    def post(self) -> None:
        """The same; both methods are asked for by the section."""
        self.get()


def rules(provider: DemoProvider) -> list[Any]:
    """The provider's Tornado rules."""
    arguments = {"provider": provider}
    return [
        (r"/\.well-known/openid-configuration", MetadataHandler, arguments),
        (r"/jwks", KeySetHandler, arguments),
        (r"/authorize", AuthorizeHandler, arguments),
        (r"/token", TokenHandler, arguments),
        (r"/revoke", RevocationHandler, arguments),
        (r"/userinfo", UserinfoHandler, arguments),
    ]
