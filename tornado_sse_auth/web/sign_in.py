"""Sign-in in the browser: `/auth/login` and `/auth/callback` (RFC 6749, section 4.1, with PKCE)."""

from __future__ import annotations

import secrets

from tornado.web import RequestHandler

from ..errors import AuthError, InvalidRequestError, NotFoundError
from ..identity import Secret, TokenSet
from ..oauth import SIGN_IN_TTL, Callback, OAuthProvider, SignInAttempt, SignInRequest, TokenResponse
from ..sessions.changes import SignedInUser
from ..sessions.credentials import read_cookie
from ..sessions.refresh_exchange import ASSUMED_LIFETIME
from .backchannel_logout import was_signed_out
from .error_page import error_page, page_policy
from .guards import single_arguments
from .handler import ErrorAnswers
from .responses import Answer

__all__ = ["CallbackHandler", "LoginHandler"]

RECORD_KIND = "sign-in"
MAX_BEGUN = 10  # sign-ins of one browser at a time


class _SignInHandler(ErrorAnswers, RequestHandler):
    sign_in_redirect = False

    def prepare(self) -> None:
        """No credential is asked for here."""
        self.identify_request()
        self.set_header("Referrer-Policy", "no-referrer")

    def write_answer(self, error: AuthError, answer: Answer) -> None:
        """A page for a browser, JSON for everybody else."""
        self.set_header("Referrer-Policy", "no-referrer")
        if "text/html" in self.request.headers.get("Accept", ""):
            nonce = secrets.token_urlsafe(16)
            page = error_page(
                error.public_message, request_id=self.request_info.request_id, again="/auth/login", nonce=nonce
            )
            headers = {"Content-Type": "text/html; charset=utf-8", "Content-Security-Policy": page_policy(nonce)}
            answer = Answer(answer.status, page, {**answer.headers, **headers})
        super().write_answer(error, answer)

    @property
    def provider(self) -> OAuthProvider:
        """The provider; without one these routes do not exist."""
        provider = self.sse_auth.provider
        if provider is None:
            raise NotFoundError(reason="there is no provider")
        return provider

    @property
    def redirect_uri(self) -> str:
        """Where the provider sends the browser back to."""
        return f"{self.sse_auth.options.public_url}/auth/callback"

    @property
    def browser_cookies(self) -> str:
        """What the names of the cookies that bind a sign-in to its browser begin with."""
        name = self.sse_auth.cookie_name
        return "__Host-sign-in-" if name.startswith("__Host-") else f"{name}_sign_in_"

    def browser_cookie(self, state: Secret) -> str:
        """The name of the cookie of one sign-in: tabs that begin at the same time do not overwrite each other's."""
        return f"{self.browser_cookies}{state.reveal()[:8]}"

    def browser(self, state: Secret) -> Secret | None:
        """The browser's binding value for this sign-in."""
        try:
            presented = read_cookie(self.request.headers.get("Cookie"), self.browser_cookie(state))
        except AuthError as error:
            raise InvalidRequestError("The sign-in cookie is malformed.", reason=str(error)) from error
        return presented.secret if presented is not None else None


class LoginHandler(_SignInHandler):
    """Begins a sign-in: `?return_to=` (a local path), `?login_hint=`, `?scope=`, `?prompt=`, `?reauth=`."""

    sign_in_redirect = True

    async def get(self) -> None:
        """Redirect to the provider. 429 beyond 120 a minute from one address, 503 while the provider is away."""
        auth = self.sse_auth
        self.redirect_loopback_page()
        auth.guard.check_origin(self.request)
        auth.sign_ins.hit(self.request_info.remote)
        arguments = single_arguments(self.request, "return_to", "login_hint", "scope", "prompt", "reauth")
        reauth = arguments.get("reauth")
        session = await auth.sessions.find_by_reauth(Secret(reauth)) if reauth else None
        browser = Secret.random()
        attempt = SignInAttempt.begin(
            browser=browser,
            return_to=arguments.get("return_to", "/"),
            scopes=self.provider.scopes_for(arguments.get("scope")),
            now=auth.clock.time(),
            reauth=session.id if session is not None else None,
        )
        request = SignInRequest(
            attempt=attempt, login_hint=arguments.get("login_hint") or None, prompt=arguments.get("prompt") or None
        )
        url = await self.provider.authorization_url(request, self.redirect_uri)
        await auth.records.put(RECORD_KIND, attempt.state.digest(), attempt.to_record(), attempt.expires_at)
        secure = auth.options.secure
        self._forget_abandoned()
        self.set_cookie(
            self.browser_cookie(attempt.state),
            browser.reveal(),
            path="/",
            httponly=True,
            secure=secure,
            samesite="Lax",
            max_age=int(SIGN_IN_TTL),
        )
        self.redirect(url)

    def _forget_abandoned(self) -> None:
        """Sign-ins that nobody finished must not fill the request's headers."""
        begun = [name for name in self.request.cookies if name.startswith(self.browser_cookies)]
        if len(begun) >= MAX_BEGUN:
            for name in begun:
                self.clear_cookie(name, path="/", secure=self.sse_auth.options.secure, httponly=True, samesite="Lax")


class CallbackHandler(_SignInHandler):
    """The browser comes back from the provider."""

    async def get(self) -> None:
        """Check, exchange the code, begin or revive the session, set its cookie, and go where the sign-in began."""
        self.sse_auth.guard.check_host(self.request)
        try:
            await self._sign_in()
        except AuthError as error:
            self.sse_auth.audit.write("sign-in", outcome=error.code, reason=error.reason)
            raise

    async def _sign_in(self) -> None:
        auth = self.sse_auth
        callback = Callback.read(
            {
                name: [value.decode("utf-8", "replace") for value in values]
                for name, values in self.request.query_arguments.items()
            }
        )
        record = await auth.records.take(RECORD_KIND, callback.state.digest())
        if record is None:
            auth.bad_credentials.hit(self.request_info.remote)
            raise InvalidRequestError(
                "This sign-in is unknown, used or too old; start it again.", reason="no such state"
            )
        attempt = SignInAttempt.from_record(record)
        attempt.check_browser(self.browser(callback.state), now=auth.clock.time())
        code = await self.provider.accept_callback(callback)
        began = auth.clock.time()
        answer = await self.provider.exchange_code(code, redirect_uri=self.redirect_uri, verifier=attempt.verifier)
        user = await self._identify(answer, attempt, began)
        revive = attempt.reauth
        if revive is None and attempt.return_to.startswith("/oauth/authorize?"):
            # What a client's user signs in for is that the client goes on; in their browser nothing may be left of it.
            revive = await auth.sessions.find_waiting(user.user_id)
        session, credential = await auth.sessions.sign_in(user, revive=revive, previous=self._previous())
        if await was_signed_out(
            auth, self.provider.issuer, subject=user.claims["sub"], sid=user.sid, since=attempt.created_at
        ):
            # Asked after the session was stored: either the logout has seen it, or it is seen here.
            await auth.sessions.revoke(session.id, reason="signed out at the provider")
            raise InvalidRequestError(
                "You have signed out at the provider meanwhile; start again.", reason="the provider's session has ended"
            )
        self.set_cookie(**auth.session_cookie(credential))
        self.clear_cookie(
            self.browser_cookie(callback.state), path="/", secure=auth.options.secure, httponly=True, samesite="Lax"
        )
        self.redirect(attempt.return_to)

    async def _identify(self, answer: TokenResponse, attempt: SignInAttempt, began: float) -> SignedInUser:
        claims: dict[str, object] = {}
        if answer.id_token is not None:
            claims |= await self.provider.verify_id_token(
                answer.id_token, nonce=attempt.nonce, access_token=answer.access_token
            )
        subject = claims.get("sub")
        more = await self.provider.userinfo(answer.access_token, subject=subject if isinstance(subject, str) else None)
        claims = {**more, **claims}  # userinfo is unsigned: what the ID token says, counts
        granted = attempt.scopes if answer.scopes is None else answer.scopes
        identity = self.sse_auth.identity_mapper(claims, granted)
        lifetime = answer.expires_in if answer.expires_in is not None else ASSUMED_LIFETIME
        sid = claims.get("sid")
        return SignedInUser(
            user_id=identity.user_id,
            scopes=identity.scopes,
            permissions=identity.permissions,
            subscription=identity.subscription,
            claims={**identity.claims, "iss": self.provider.issuer, "sub": claims.get("sub")},
            token_set=TokenSet(
                access_token=answer.access_token,
                refresh_token=answer.refresh_token,
                issued_at=began,
                expires_at=began + lifetime,
                scopes=granted,
            ),
            sid=sid if isinstance(sid, str) else None,
            client=self.request_info.client,
        )

    def _previous(self) -> Secret | None:
        try:
            presented = read_cookie(self.request.headers.get("Cookie"), self.sse_auth.cookie_name)
        except AuthError:  # a planted or damaged cookie is replaced like any other
            return None
        return presented.secret if presented is not None else None
