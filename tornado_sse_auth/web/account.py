"""What users do with their sessions: `/auth/logout`, `/auth/token`, `/auth/sessions`, and who they are."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from tornado.web import RequestHandler

from ..errors import AuthenticationRequiredError, InvalidRequestError, InvalidTokenError
from ..identity import CredentialKind, Grant, Session
from .mixin import SSEAuthMixin

__all__ = ["GrantHandler", "LogoutHandler", "SessionHandler", "SessionsHandler", "TokenHandler"]

DEFAULT_BEARER_TTL = 86_400


class _AccountHandler(SSEAuthMixin, RequestHandler):
    sign_in_redirect = False

    async def prepare(self) -> None:
        """A bearer of another authorization server has no say about sessions."""
        await super().prepare()
        if not self.authenticated.session.stored:
            raise InvalidTokenError(reason="a bearer of another authorization server on an account path")

    def write_json(self, document: object) -> None:
        """Answer with JSON."""
        self.set_header("Content-Type", "application/json; charset=utf-8")
        self.finish(json.dumps(document))


class LogoutHandler(_AccountHandler):
    """Ends what the cookie opened; `{"everywhere": true}` ends all of the user's sessions."""

    def check_session_state(self, session: Session) -> None:
        """Also a session that needs its user can be ended."""

    async def post(self) -> None:
        """204, and the cookie is gone."""
        everywhere = self.json_object().get("everywhere", False)
        if not isinstance(everywhere, bool):
            raise InvalidRequestError("everywhere is true or false.")
        auth = self.sse_auth
        if everywhere:
            await auth.sessions.revoke_user(self.authenticated.session.user_id)
        else:
            await auth.sessions.sign_out(self.authenticated)
        self.clear_cookie(auth.cookie_name, path="/", secure=auth.options.secure, httponly=True, samesite="Lax")
        self.set_status(204)
        self.finish()


class TokenHandler(_AccountHandler):
    """Makes a bearer for scripts from the cookie: `{"grant": "session", "expires_in": 86400}`."""

    async def post(self) -> None:
        """200 with `access_token`, `token_type`, `expires_in` (RFC 6749, section 5.1)."""
        found = self.authenticated
        if found.credential.kind is not CredentialKind.COOKIE:
            raise AuthenticationRequiredError("A bearer is made with the session cookie only.")
        body = self.json_object()
        if body.get("grant") != "session":
            raise InvalidRequestError('grant must be "session".')
        expires_in = body.get("expires_in", DEFAULT_BEARER_TTL)
        if isinstance(expires_in, bool) or not isinstance(expires_in, int | float) or not 1 <= expires_in <= 1e10:
            raise InvalidRequestError("expires_in is a number of seconds, at least 1.")
        secret, lifetime = await self.sse_auth.sessions.issue_bearer(
            found.session.id, found.credential.digest, float(expires_in)
        )
        self.write_json({"access_token": secret.reveal(), "token_type": "Bearer", "expires_in": int(lifetime)})


class SessionsHandler(_AccountHandler):
    """The user's sessions."""

    sign_in_redirect = True

    async def get(self) -> None:
        """`{"sessions": [...]}`, oldest first, each with its grants; `open_streams` counts those of this process."""
        auth = self.sse_auth
        current = self.authenticated.session
        sessions = await auth.sessions.sessions_of(current.user_id)
        self.write_json(
            {
                "sessions": [
                    {
                        "id": session.id,
                        "created": _iso(session.created_at),
                        "last_seen": _iso(session.last_seen),
                        "client": session.client,
                        "current": session.id == current.id,
                        "open_streams": auth.registry.count(session.id),
                        "grants": [_grant(grant) for grant in session.grants if not grant.pending],
                    }
                    for session in sessions
                ]
            }
        )


class SessionHandler(_AccountHandler):
    """One of the user's sessions."""

    async def delete(self, session_id: str) -> None:
        """End it: 204, or 404 for one that is not the user's."""
        await self.sse_auth.sessions.revoke_own(self.authenticated.session.user_id, session_id)
        self.set_status(204)
        self.finish()


class GrantHandler(_AccountHandler):
    """What the user has allowed one installation of a client."""

    async def delete(self, session_id: str, grant_id: str) -> None:
        """End it, its tokens and its streams: 204, or 404 for one that is not the user's."""
        await self.sse_auth.sessions.end_own_grant(self.authenticated.session.user_id, session_id, grant_id)
        self.set_status(204)
        self.finish()


def _grant(grant: Grant) -> dict[str, object]:
    return {
        "id": grant.id,
        "client_id": grant.client_id,
        "name": grant.name,
        "redirect_uri": grant.redirect_uri,
        "resources": list(grant.audience),
        "scopes": sorted(grant.scopes),
        "created": _iso(grant.created_at),
        "last_used": _iso(grant.last_used),
    }


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
