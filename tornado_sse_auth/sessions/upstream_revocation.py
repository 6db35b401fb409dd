"""The end of a session's tokens at the provider, in the background."""

from __future__ import annotations

import asyncio
import logging
from typing import Literal, Protocol

from ..errors import StoreUnavailableError
from ..identity import Secret, Session, TokenSet
from ..stores.base import SessionStore

__all__ = ["TokenRevoker", "UpstreamRevocation"]

_log = logging.getLogger(__name__)


class TokenRevoker(Protocol):
    """Ends a token at the provider (RFC 7009). An `OAuthProvider` is one."""

    async def revoke(self, token: Secret, hint: Literal["refresh_token", "access_token"]) -> None:
        """Best effort, bounded in time; never raises for what the provider answers."""
        ...


class UpstreamRevocation:
    """Owner of the tasks that revoke; without a revoker there are none."""

    def __init__(self, store: SessionStore, revoker: TokenRevoker | None) -> None:
        self._store = store
        self._revoker = revoker
        self._running: set[asyncio.Task[None]] = set()

    async def close(self, grace: float) -> None:
        """Give what runs `grace` seconds, then cancel it. Twice is once."""
        if self._running:
            _, late = await asyncio.wait(self._running, timeout=grace)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def begin(self, session: Session) -> None:
        """End the token set of a session that has ended at the provider too, in the background."""
        if self._revoker is None or session.token_set is None:
            return
        task = asyncio.create_task(self._revoke_unshared(self._revoker, session, session.token_set))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _revoke_unshared(self, revoker: TokenRevoker, session: Session, token_set: TokenSet) -> None:
        """Sign-ins of one user in one browser share a grant at many providers, and revocation ends the whole grant
        (RFC 7009, section 2.1): what is left of the user's sessions must not lose its tokens."""
        try:
            others = await self._store.find_by_user(session.user_id)
        except StoreUnavailableError as error:
            _log.warning("the tokens of session %s were not revoked at the provider: %s", session.id, error)
            return
        if any(other.id != session.id and other.sid == session.sid and other.token_set for other in others):
            return
        if token_set.refresh_token is not None:
            await revoker.revoke(token_set.refresh_token, "refresh_token")
        else:
            await revoker.revoke(token_set.access_token, "access_token")
