"""When a session is due for a refresh. Pure."""

from __future__ import annotations

from ..identity import Session, SessionState

__all__ = ["refresh_due_at"]

JITTER = 0.05


def refresh_due_at(session: Session, *, fraction: float, random: float, now: float) -> float | None:
    """Wall-clock time (epoch seconds) of the session's next refresh, or None when nothing is to be refreshed.

    It follows from the token's life alone: at `fraction` of it, up to 5 % of the life earlier by `random` (0 to 1).
    After a failure not before the row's `not_before`. Without a refresh token: at expiry, when the user is needed.
    No token that is known lives for longer than its life: one that seems to was stored under another clock. It is due
    when its life has passed from now on, if nobody whose clock is right has refreshed it by then.
    """
    token_set = session.token_set
    if token_set is None or session.state is not SessionState.ACTIVE:
        return None
    due = token_set.expires_at
    if token_set.refresh_token is not None:
        due = token_set.issued_at + token_set.lifetime * (fraction - JITTER * random)
    due = min(due, now + token_set.lifetime)
    postponement = session.refresh.postponement(now)
    return max(due, now + postponement) if postponement else due
