"""What a refresh says of its user: learnt and written once its token set is safe."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from ..clock import Clock
from ..errors import AuthError, InvalidTokenError
from ..identity import Session
from ..oauth import AnotherSubject, IdentityMapper, OAuthProvider, TokenResponse, claimed_subject
from .manager import SessionManager
from .session_writes import until_written

__all__ = ["ENRICH_INTERVAL", "RefreshedIdentity"]

_log = logging.getLogger(__name__)

ENRICH_INTERVAL = 600.0  # seconds between two looks at userinfo


class RefreshedIdentity:
    """Reads the new ID token and, now and then, userinfo; a session whose tokens are another user's ends."""

    def __init__(
        self, provider: OAuthProvider, sessions: SessionManager, *, identity_mapper: IdentityMapper, clock: Clock
    ) -> None:
        self._provider = provider
        self._sessions = sessions
        self._mapper = identity_mapper
        self._clock = clock

    async def check(self, session: Session, answer: TokenResponse) -> None:
        """Before anything of the answer is kept or given to anybody: what says that it is another user's ends the
        session, genuine or not. The provider is not asked for that. Raises `InvalidTokenError` then."""
        subject = self._subject(session)
        if subject is None or answer.id_token is None or claimed_subject(answer.id_token) in (None, subject):
            return
        await self._end(session)
        raise InvalidTokenError(reason="the session has ended: its refresh answered for another subject")

    async def update(self, saved: Session, answer: TokenResponse) -> None:
        """What the new ID token and userinfo say of the user. A failure keeps what was known; userinfo about another
        subject ends the session."""
        subject = self._subject(saved)
        if subject is None:
            return
        signed: Mapping[str, Any] = {}
        if answer.id_token is not None:
            signed = await self._learn("ID token", saved, self._provider.verify_id_token(answer.id_token, nonce=None))
        told: Mapping[str, Any] = {}
        enriched_at = saved.enriched_at
        if self._clock.time() - saved.enriched_at >= ENRICH_INTERVAL:
            enriched_at = self._clock.time()
            try:
                told = await self._learn(
                    "userinfo", saved, self._provider.userinfo(answer.access_token, subject=subject)
                )
            except AnotherSubject:
                await self._end(saved)
                return

        if not signed and not told and enriched_at == saved.enriched_at:
            return

        def change(session: Session) -> Session | None:
            if session.token_version != saved.token_version:
                return None  # a refresh elsewhere, or a new sign-in, knows better
            changed = replace(session, enriched_at=enriched_at)
            if signed or told:
                # Both together say all there is, as at sign-in; one of them alone adds to what is known.
                known = {} if signed and told else session.claims
                assert session.token_set is not None  # noqa: S101 - it was just refreshed
                identity = self._mapper({**known, **told, **signed}, session.token_set.scopes)
                changed = replace(
                    changed,
                    permissions=identity.permissions,
                    subscription=identity.subscription,
                    claims=MappingProxyType({**identity.claims, "iss": self._provider.issuer, "sub": subject}),
                )
            return changed if changed != session else None

        await until_written(lambda: self._sessions.update_read(saved, change))

    def _subject(self, session: Session) -> str | None:
        """Whom the provider's answers for this session must name."""
        subject = session.claims.get("sub")
        return str(subject) if subject is not None and session.claims.get("iss") == self._provider.issuer else None

    async def _learn(self, what: str, session: Session, question: Awaitable[Mapping[str, Any]]) -> Mapping[str, Any]:
        try:
            return await question
        except AnotherSubject:
            raise
        except AuthError as error:
            _log.warning("%s of session %s was not taken over: %s", what, session.id, error)
            return {}

    async def _end(self, session: Session) -> None:
        reason = "a refresh answered for another subject"
        await until_written(lambda: self._sessions.revoke(session.id, reason=reason))
