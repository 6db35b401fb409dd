"""When a session is due for a refresh. Pure."""

from __future__ import annotations

from ..identity import Session, SessionState

__all__ = ["refresh_due_at"]

JITTER = 0.05


def refresh_due_at(session: Session, *, fraction: float, random: float) -> float | None:
    """Wall-clock time (epoch seconds) of the session's next refresh, or None when nothing is to be refreshed.

    It follows from the token's life alone: at `fraction` of it, up to 5 % of the life earlier by `random` (0 to 1).
    After a failure not before the row's `not_before`. Without a refresh token: at expiry, when the user is needed.
    """
    token_set = session.token_set
    if token_set is None or session.state is not SessionState.ACTIVE:
        return None
    if token_set.refresh_token is None:
        return token_set.expires_at
    due = token_set.issued_at + token_set.lifetime * (fraction - JITTER * random)
    return max(due, session.refresh.not_before)
