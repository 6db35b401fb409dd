"""The Tornado handler of the authorization endpoint: what of a browser's request and answer is not protocol."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence

from tornado.web import RequestHandler

from ..errors import AuthError, ExpiredTokenError, InvalidOriginError, InvalidRequestError, InvalidTokenError
from ..identity import Secret
from ..sessions.cache import Authenticated
from ..sessions.credentials import read_cookie
from ..web.handler import ErrorAnswers
from ..web.responses import Answer
from .authorize import AuthorizationEndpoint, Redirect
from .pages import Consent, consent_page, page_policy, refusal_page

__all__ = ["AuthorizationHandler"]


class AuthorizationHandler(ErrorAnswers, RequestHandler):
    """Serves an `AuthorizationEndpoint`. One cookie a browser binds all its requests to it."""

    sign_in_redirect = True
    max_body = 65_536

    def initialize(self, endpoint: AuthorizationEndpoint) -> None:
        """`endpoint`: whose handler this is."""
        self.endpoint = endpoint

    def prepare(self) -> None:
        """No credential is asked for here."""
        self.identify_request()
        # Not "no-referrer": with that a form's POST has no Origin.
        self.set_header("Referrer-Policy", "same-origin")

    async def get(self) -> None:
        """A new request, or a stored one: `?request=`."""
        auth = self.sse_auth
        self.redirect_loopback_page()
        self.sse_auth.guard.check_origin(self.request)  # a link may lead here; an image or a script begins nothing
        arguments = _decoded(self.request.query_arguments)
        stored = arguments.get("request")
        if stored is not None:
            if len(stored) != 1 or len(arguments) != 1:
                raise InvalidRequestError("Request objects are not supported.")
            self._show(await self.endpoint.resume(stored[0], await self._signed_in(), self._browser()))
            return
        auth.sign_ins.hit(self.request_info.remote)
        self._show(await self.endpoint.begin(arguments, await self._signed_in(), self._browser() or self._bind()))

    async def post(self) -> None:
        """The form of the consent page."""
        self.sse_auth.guard.check_host(self.request)
        self._check_own_page()
        if self.request.query_arguments:
            raise InvalidRequestError("The form has its fields in the body.")
        form = _decoded(self.request.body_arguments)
        self._show(await self.endpoint.decide(form, await self._signed_in(), self._browser()))

    def _check_own_page(self) -> None:
        """Only our own page may send the form, whatever else is allowed to use this server."""
        self.sse_auth.guard.check_same_origin(self.request)
        headers = self.request.headers
        site, origin = headers.get("Sec-Fetch-Site"), headers.get("Origin")
        if site not in (None, "same-origin"):
            raise InvalidOriginError(reason=f"Sec-Fetch-Site {site[:20]!r}")
        if origin not in (None, self.sse_auth.options.public_url):
            raise InvalidOriginError(reason=f"Origin {origin[:100]!r}")

    async def _signed_in(self) -> Authenticated | None:
        """Who is signed in by the browser's session cookie. A bad one is as good as none, and counts as one."""
        auth = self.sse_auth
        try:
            presented = read_cookie(self.request.headers.get("Cookie"), auth.cookie_name)
            return await auth.sessions.validate(presented) if presented is not None else None
        except ExpiredTokenError:
            return None
        except InvalidTokenError:
            auth.bad_credentials.hit(self.request_info.remote)
            return None

    @property
    def _cookie(self) -> str:
        name = self.sse_auth.cookie_name
        return "__Host-authorize" if name.startswith("__Host-") else f"{name}_authorize"

    def _browser(self) -> Secret | None:
        try:
            presented = read_cookie(self.request.headers.get("Cookie"), self._cookie)
        except AuthError:  # a planted or damaged cookie is as good as none
            return None
        return presented.secret if presented is not None else None

    def _bind(self) -> Secret:
        browser = Secret.random()
        secure = self.sse_auth.options.secure
        self.set_cookie(
            self._cookie, browser.reveal(), path="/", httponly=True, secure=secure, samesite="Lax", expires_days=None
        )
        return browser

    def _show(self, outcome: Redirect | Consent) -> None:
        if isinstance(outcome, Redirect):
            self.set_status(303)
            self.set_header("Location", outcome.location)
            self.finish()
            return
        nonce = secrets.token_urlsafe(16)
        for name, value in _page_headers(nonce).items():
            self.set_header(name, value)
        self.finish(consent_page(outcome, nonce=nonce))

    def write_answer(self, error: AuthError, answer: Answer) -> None:
        """A page: only a person comes here."""
        nonce = secrets.token_urlsafe(16)
        page = refusal_page(error.public_message, reference=self.request_info.request_id, nonce=nonce)
        headers = {**answer.headers, **_page_headers(nonce), "Referrer-Policy": "same-origin"}
        headers.pop("WWW-Authenticate", None)
        super().write_answer(error, Answer(answer.status, page, headers))


def _page_headers(nonce: str) -> dict[str, str]:
    return {
        "Content-Type": "text/html; charset=utf-8",
        "Content-Security-Policy": page_policy(nonce),
        "X-Frame-Options": "DENY",
    }


def _decoded(arguments: Mapping[str, Sequence[bytes]]) -> dict[str, list[str]]:
    try:
        return {name: [value.decode("utf-8") for value in values] for name, values in arguments.items()}
    except UnicodeDecodeError:
        raise InvalidRequestError("A parameter is not UTF-8.") from None
