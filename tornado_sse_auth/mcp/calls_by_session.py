"""Calls of the 2025 revisions outlive their connections, but not the session or the grant that they were made with."""

from __future__ import annotations

from collections.abc import Iterable

from ..identity import Session
from ..sessions.cache import Authenticated
from .peer import Underway

__all__ = ["CallsBySession"]


class CallsBySession:
    """The calls under way in this process, whether or not a client listens. Told what becomes of sessions, as open
    streams are."""

    def __init__(self) -> None:
        self._calls: dict[str, dict[Underway, str | None]] = {}
        self._versions: dict[str, int] = {}

    def add(self, call: Underway, found: Authenticated) -> None:
        """The call has begun, with what `found` says."""
        session = found.session
        if not session.stored:  # of a bearer that nobody here can revoke
            return
        self._calls.setdefault(session.id, {})[call] = found.credential.grant
        self._versions[session.id] = max(session.version, self._versions.get(session.id, 0))

    def remove(self, call: Underway, found: Authenticated) -> None:
        """It is over."""
        of_session = self._calls.get(found.session.id, {})
        of_session.pop(call, None)
        if not of_session:
            self._calls.pop(found.session.id, None)
            self._versions.pop(found.session.id, None)

    def version(self, session_id: str) -> int | None:
        """The newest version known of a session with calls under way."""
        return self._versions.get(session_id)

    def session_ids(self) -> Iterable[str]:
        """Every session with a call under way."""
        return list(self._calls)

    def session_changed(self, session: Session) -> None:
        """End the calls whose grant is gone."""
        calls = self._calls.get(session.id)
        if calls is None or session.version < self._versions[session.id]:
            return
        self._versions[session.id] = session.version
        for call, grant in tuple(calls.items()):
            if grant is not None and session.grant(grant) is None:
                call.stop()

    def session_ended(self, session_id: str, reason: str) -> None:
        """End the session's calls."""
        for call in tuple(self._calls.get(session_id, ())):
            call.stop()
