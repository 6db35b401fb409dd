"""What happens to a session, as functions from one version to the next. Pure: time and randomness are arguments."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from ..identity import Credential, CredentialKind, Session, SessionState, TokenSet
from ..options import Options
from .grant_changes import without_expired

__all__ = ["SignedInUser", "new_session", "revived", "with_bearer", "without_credential"]

CREDENTIALS_PER_SESSION = 50
CLIENT_NAME_LENGTH = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedInUser:
    """Who has signed in: what a session is made from. `sid` is the provider's session id."""

    user_id: str
    scopes: frozenset[str]
    permissions: frozenset[str]
    subscription: str | None
    claims: Mapping[str, Any]
    token_set: TokenSet | None
    sid: str | None = None
    client: str = ""


def new_session(user: SignedInUser, credential: Credential, *, now: float, options: Options) -> Session:
    """A session with its first credential. Raises `ValueError` without a user id."""
    if not user.user_id:
        raise ValueError("a session needs a user_id")
    return Session(
        id=secrets.token_hex(16),
        user_id=user.user_id,
        created_at=now,
        last_seen=now,
        expires_at=now + options.session_ttl,
        idle_expires_at=now + options.idle_ttl,
        scopes=user.scopes,
        permissions=user.permissions,
        subscription=user.subscription,
        claims=MappingProxyType(dict(user.claims)),
        credentials=(credential,),
        token_set=user.token_set,
        token_version=1 if user.token_set else 0,
        sid=user.sid,
        enriched_at=now if user.token_set else 0.0,
        client=user.client[:CLIENT_NAME_LENGTH],
    )


def revived(
    session: Session, user: SignedInUser, credential: Credential, *, replaced: bytes | None, now: float
) -> Session | None:
    """The session after its user has signed in again; None when it is somebody else's.

    Its bearers and grants stay, and what was to last as long as the session does so again; `credential` is the
    browser's new cookie, and takes the place of `replaced`, its older one.
    """
    if session.user_id != user.user_id:
        return None
    kept = tuple(
        replace(old, parent=credential.digest) if replaced is not None and old.parent == replaced else old
        for old in session.credentials
        if old.digest != replaced
    )
    expires_at = max(credential.expires_at, session.expires_at)
    kept = tuple(replace(old, expires_at=expires_at) if old.kind is CredentialKind.REFRESH else old for old in kept)
    return replace(
        session,
        credentials=(*kept, credential),
        scopes=user.scopes,
        permissions=user.permissions,
        subscription=user.subscription,
        claims=MappingProxyType(dict(user.claims)),
        token_set=user.token_set,
        token_version=session.token_version + 1,
        state=SessionState.ACTIVE,
        reauth=None,
        reauth_reason=None,
        expires_at=expires_at,
        enriched_at=now,
        sid=user.sid,
    )


def with_bearer(session: Session, bearer: Credential, *, now: float) -> Session | None:
    """The session with one more bearer, and without what has expired; None when the cookie it was made with is gone.
    Beyond 50 credentials the oldest bearers end."""
    if bearer.parent is None or session.credential(bearer.parent) is None:
        return None
    own = [old for old in session.credentials if old.grant is None and old.expires_at > now]
    bearers = [old for old in own if old.kind is CredentialKind.BEARER]
    surplus = bearers[: max(0, len(own) - CREDENTIALS_PER_SESSION + 1)]
    kept = tuple(old for old in session.credentials if old not in surplus)
    return without_expired(replace(session, credentials=(*kept, bearer)), now=now)


def without_credential(session: Session, digest: bytes, *, now: float) -> Session | None:
    """The session without this credential, those made with it, and what has expired; None when nothing changes."""
    kept = tuple(old for old in session.credentials if digest not in (old.digest, old.parent))
    changed = without_expired(replace(session, credentials=kept), now=now)
    return changed if changed.credentials != session.credentials else None
