"""`/auth/backchannel-logout`: a user has signed out at the provider (OpenID Connect Back-Channel Logout 1.0)."""

from __future__ import annotations

import hashlib

from tornado.web import RequestHandler

from ..errors import InvalidRequestError, NotFoundError
from ..identity import Secret
from ..oauth import SIGN_IN_TTL, LogoutToken
from .context import AuthContext
from .handler import ErrorAnswers

__all__ = ["BackChannelLogoutHandler", "was_signed_out"]

USED = "logout"
SIGNED_OUT = "signed-out"


class BackChannelLogoutHandler(ErrorAnswers, RequestHandler):
    """Ends the sessions that a logout token is about, in every process."""

    sign_in_redirect = False
    max_body = 65_536

    def prepare(self) -> None:
        """The token is all the authentication there is (section 2.5)."""
        self.identify_request()
        self.sse_auth.guard.check_host(self.request)

    async def post(self) -> None:
        """200 once the sessions have ended; 400 for a token that is not genuine, fresh, ours and new (section 2.8);
        503 while store or provider are away: the provider may present the same token again."""
        auth = self.sse_auth
        if auth.provider is None:
            raise NotFoundError(reason="there is no provider")
        try:
            token = await auth.provider.verify_logout_token(self._logout_token())
            ended = await self._end_once(auth.provider.issuer, token)
        except InvalidRequestError as error:
            auth.audit.write("sign-out", outcome=error.code, reason=error.reason)
            auth.bad_credentials.hit(self.request_info.remote)
            raise InvalidRequestError("The logout token is not valid.", reason=error.reason) from error
        auth.audit.write("sign-out", outcome="success", reason=f"back-channel logout of {ended} sessions")
        self.finish()

    def _logout_token(self) -> Secret:
        values = self.request.body_arguments.get("logout_token", [])
        if len(values) != 1 or not values[0].isascii():
            raise InvalidRequestError(reason="not one logout_token in a form")
        return Secret(values[0].decode("ascii"))

    async def _end_once(self, issuer: str, token: LogoutToken) -> int:
        """End the sessions, then note the token as used: one that comes again after a failure in between does no
        harm, one that was noted and then failed could not be presented again."""
        auth = self.sse_auth
        used = _digest(issuer, token.jti)
        if await auth.kept.get(USED, used) is not None:
            raise InvalidRequestError(reason="the logout token was used before")
        await self._note(issuer, token)
        ended = await auth.sessions.end_at_provider(issuer, subject=token.subject, sid=token.sid)
        if not await auth.kept.replace(USED, used, {}, token.until, version=0):
            raise InvalidRequestError(reason="the logout token was used at the same moment")
        return ended

    async def _note(self, issuer: str, token: LogoutToken) -> None:
        """For the sign-ins that are under way; before the sessions are looked for, so that either sees the other."""
        now = self.sse_auth.clock.time()
        marks = [] if token.sid is None else [("session", token.sid)]
        if token.subject is not None:
            marks.append(("subject" if token.sid is None else "subject without session", token.subject))
        for kind, name in marks:
            await self.sse_auth.kept.put(SIGNED_OUT, _digest(issuer, name, kind), {"at": now}, now + SIGN_IN_TTL)


async def was_signed_out(auth: AuthContext, issuer: str, *, subject: object, sid: str | None, since: float) -> bool:
    """Whether the provider has signed its user out while a sign-in was under way that began at `since` (epoch seconds).

    Of its session `sid` it says so once and for all; of a user, who may have signed in again, for what began before.
    """
    if sid is not None and await auth.kept.get(SIGNED_OUT, _digest(issuer, sid, "session")) is not None:
        return True
    for kind in ("subject",) if sid is not None else ("subject", "subject without session"):
        mark = await auth.kept.get(SIGNED_OUT, _digest(issuer, str(subject), kind))
        if mark is not None and mark.value["at"] >= since:
            return True
    return False


def _digest(issuer: str, name: str, kind: str = "") -> str:
    return hashlib.sha256(f"{kind}|{issuer}|{name}".encode()).hexdigest()
