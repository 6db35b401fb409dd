"""What happens to the grants of a session, as functions from one version to the next. Pure.

The tokens of a grant are credentials of the session: a grant is there as long as one of them is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..identity import Credential, CredentialKind, Grant, Session, SpentRefreshToken

__all__ = [
    "ACCESS_TOKENS",
    "GRACE",
    "GRANTS_PER_SESSION",
    "Issued",
    "accepted",
    "answered",
    "redeemed",
    "rotated",
    "with_access_token",
    "with_grant",
    "without_expired",
    "without_grant",
]

GRANTS_PER_SESSION = 50
ACCESS_TOKENS = 8  # of one grant, at a time
GRACE = 30.0  # seconds in which a spent refresh token may come again: other threads and processes of one client
STRAGGLERS = 5.0  # seconds after a refresh in which calls with the access token before it still pass
CODE_REMEMBERED = 600.0  # seconds after its exchange in which a second use of an authorization code is recognized


def with_grant(session: Session, grant: Grant, code: Credential, *, now: float) -> Session:
    """The session with a grant that waits for the exchange of `code`. Beyond 50 the least recently used grant ends."""
    session = without_expired(session, now=now)
    grants = sorted(session.grants, key=lambda old: old.last_used)
    for old in grants[: max(0, len(grants) - GRANTS_PER_SESSION + 1)]:
        session = _without(session, old.id)
    return replace(session, grants=(*session.grants, grant), credentials=(*session.credentials, code))


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """What the token endpoint answers with, as it is stored: the access token's credential and, where the client
    refreshes, the SHA-256 of the refresh token and the access token sealed under a key that it gives."""

    access_token: Credential
    refresh_token: bytes | None = None
    sealed: bytes | None = None


def redeemed(session: Session, code: bytes, issued: Issued, family: Credential | None, *, now: float) -> Session | None:
    """The session after the exchange of the authorization code with this digest; None when it has been exchanged.
    `family` is what all refresh tokens of the grant are found by."""
    grant = _grant_of(session, code)
    if grant is None or not grant.pending:
        return None
    # The code is remembered: its second use ends what the first has given (RFC 6749, section 4.1.2).
    kept = tuple(
        replace(old, expires_at=now + CODE_REMEMBERED) if old.digest == code else old for old in session.credentials
    )
    added = (issued.access_token,) if family is None else (issued.access_token, family)
    changed = replace(
        grant, pending=False, refresh_token=issued.refresh_token, access_token=issued.sealed, last_used=now
    )
    return without_expired(_replaced(replace(session, credentials=(*kept, *added)), changed), now=now)


def accepted(grant: Grant, digest: bytes, *, now: float) -> bool:
    """Whether a spent refresh token with this digest still opens the grant.

    For 30 s any does; while neither token of the last answer has been used, that answer may have been lost, and its
    predecessor does however late.
    """
    for spent in grant.spent:
        if spent.digest == digest:
            return now - spent.spent_at <= GRACE or (spent is grant.spent[-1] and not grant.answered)
    return False


def rotated(session: Session, grant_id: str, spent: SpentRefreshToken, issued: Issued, *, now: float) -> Session | None:
    """The session after the grant's refresh token was exchanged; None when it is not the current one any more. Of the
    spent ones the last stays, and those within the grace."""
    grant = session.grant(grant_id)
    if grant is None or grant.refresh_token != spent.digest:
        return None
    recent = tuple(old for old in grant.spent if now - old.spent_at <= GRACE)
    return _answered_with(
        session, replace(grant, refresh_token=issued.refresh_token, spent=(*recent, spent)), issued, now=now
    )


def with_access_token(session: Session, seen: Grant, issued: Issued, *, now: float) -> Session | None:
    """The session with one more access token, for a client that presented a spent refresh token and is given the
    current one; None when the grant's last answer is not the one of `seen` any more."""
    grant = session.grant(seen.id)
    if grant is None or (grant.refresh_token, grant.access_token) != (seen.refresh_token, seen.access_token):
        return None
    return _answered_with(session, grant, issued, now=now)


def answered(session: Session, access_token: bytes, *, now: float) -> Session | None:
    """The session whose grant's last answer has arrived, for the access token with this digest is used; None when that
    is known, or the token is not of that answer."""
    grant = _grant_of(session, access_token)
    if grant is None or grant.answered or _newest_access_token(session, grant.id) != access_token:
        return None
    return _replaced(session, replace(grant, answered=True, last_used=now))


def without_grant(session: Session, grant_id: str, *, now: float) -> Session | None:
    """The session without this grant; None when it has none such."""
    return None if session.grant(grant_id) is None else without_expired(_without(session, grant_id), now=now)


def without_expired(session: Session, *, now: float) -> Session:
    """The session without credentials that have expired, and without grants that no credential opens any more."""
    live = [old for old in session.credentials if old.expires_at > now]
    waiting = {grant.id for grant in session.grants if grant.pending}
    # A code that is spent opens nothing.
    held = {old.grant for old in live if old.kind is not CredentialKind.CODE or old.grant in waiting}
    return replace(
        session,
        credentials=tuple(old for old in live if old.grant is None or old.grant in held),
        grants=tuple(grant for grant in session.grants if grant.id in held),
    )


def _grant_of(session: Session, digest: bytes) -> Grant | None:
    credential = session.credential(digest)
    return session.grant(credential.grant) if credential is not None else None


def _newest_access_token(session: Session, grant_id: str) -> bytes | None:
    of_grant = [old for old in session.credentials if old.grant == grant_id and old.kind is CredentialKind.BEARER]
    return of_grant[-1].digest if of_grant else None


def _answered_with(session: Session, grant: Grant, issued: Issued, *, now: float) -> Session:
    grant = replace(grant, access_token=issued.sealed, answered=False, last_used=now)
    before = _newest_access_token(session, grant.id)
    # Calls that are under way with the token before must not meet a 401 now: a client that has just refreshed takes
    # that for a broken server and gives up (TypeScript SDK 1).
    kept = tuple(
        replace(old, expires_at=max(old.expires_at, now + STRAGGLERS))
        if old.digest == before and old.expires_at > now - STRAGGLERS
        else old
        for old in session.credentials
    )
    credentials = (*kept, issued.access_token)
    session = without_expired(_replaced(replace(session, credentials=credentials), grant), now=now)
    of_grant = [old for old in session.credentials if old.grant == grant.id and old.kind is CredentialKind.BEARER]
    surplus = of_grant[:-ACCESS_TOKENS]
    return replace(session, credentials=tuple(old for old in session.credentials if old not in surplus))


def _replaced(session: Session, grant: Grant) -> Session:
    return replace(session, grants=tuple(grant if old.id == grant.id else old for old in session.grants))


def _without(session: Session, grant_id: str) -> Session:
    return replace(
        session,
        credentials=tuple(old for old in session.credentials if old.grant != grant_id),
        grants=tuple(grant for grant in session.grants if grant.id != grant_id),
    )
