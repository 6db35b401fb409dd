"""Grants from consent to end: the code, its exchange, the chain of refresh tokens, revocation.

A grant is part of its session's document, and every change of it is one conditional write of that: of many requests
with one code or refresh token, to however many processes, one changes the grant and the others see what it has become.
"""

from __future__ import annotations

import hmac
import json
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass

from authlib.oauth2.rfc7636 import create_s256_code_challenge

from ..audit import AuditLog
from ..clock import Clock
from ..errors import StoreUnavailableError
from ..identity import Credential, CredentialKind, Grant, Secret, Session, SessionState, SpentRefreshToken
from ..sealing import Keyring, UnsealError, context
from ..sessions.credentials import issue
from ..sessions.grant_changes import Issued, accepted, redeemed, rotated, with_access_token, with_grant
from ..sessions.manager import SessionManager
from ..stores.base import SessionStore
from .clients import Client
from .errors import InvalidGrantError, InvalidScopeError, InvalidTargetError

__all__ = ["CODE_TTL", "GrantManager", "Tokens", "Wish"]

CODE_TTL = 60.0
ATTEMPTS = 8
# 256 bits that all refresh tokens of a grant share and that find it, then 256 of each one's own: however old a token
# is, its second use is seen, without a list of all that there ever were.
REFRESH_TOKEN = re.compile(r"[A-Za-z0-9_-]{86}")
FAMILY_CHARACTERS = 43


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a client asks of the token endpoint: at most `scopes`, for the resource `audience`; None: all that was
    granted."""

    client: Client
    scopes: frozenset[str] | None = None
    audience: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """An answer of the token endpoint. `expires_in` is what remains of the access token, in seconds."""

    access_token: Secret
    refresh_token: Secret | None
    expires_in: int
    scopes: frozenset[str]


class GrantManager:
    """Makes grants and answers with their tokens. `access_token_ttl` in seconds.

    Every method may raise `StoreUnavailableError`; then nothing was spent that cannot be presented again.
    """

    def __init__(
        self, store: SessionStore, sessions: SessionManager, *, access_token_ttl: float, clock: Clock, audit: AuditLog
    ) -> None:
        self._store = store
        self._sessions = sessions
        self._ttl = access_token_ttl
        self._clock = clock
        self._audit = audit

    async def begin(
        self,
        session_id: str,
        *,
        client: Client,
        redirect_uri: str,
        audience: tuple[str, ...],
        scopes: frozenset[str],
        refused: frozenset[str],
        challenge: str,
    ) -> Secret:
        """A grant to which the user has just agreed; its authorization code, good for a minute. `refused`: scopes that
        were asked for and that the account does not have. Raises `InvalidGrantError` where the session has ended
        meanwhile."""
        now = self._clock.time()
        grant = Grant(
            id=secrets.token_hex(16),
            client_id=client.id,
            redirect_uri=redirect_uri,
            audience=audience,
            scopes=scopes,
            refused=refused,
            created_at=now,
            last_used=now,
            name=client.name,
            challenge=challenge,
            pending=True,
            refreshes=client.refreshes,
        )
        code, credential = issue(CredentialKind.CODE, now=now, expires_at=now + CODE_TTL, grant=grant.id)
        session = await self._sessions.update(session_id, lambda stored: with_grant(stored, grant, credential, now=now))
        if session is None:
            raise InvalidGrantError(reason="the session has ended")
        self._audit.write(
            "grant",
            outcome="success",
            user_id=session.user_id,
            session_id=session.id,
            reason=f"grant {grant.id} of client {client.id[:200]}",
        )
        return code

    # -- the code --------------------------------------------------------------------------------------------------

    async def redeem(self, code: Secret, wish: Wish, *, redirect_uri: str | None, verifier: str) -> Tokens:
        """The first tokens of a grant, for its code (RFC 6749, section 4.1.3; RFC 7636, section 4.6).

        Who is not its client, or lacks the verifier, spends nothing. A second valid use ends the grant. Raises
        `InvalidGrantError`, `InvalidTargetError`, `InvalidScopeError`.
        """
        session, grant = await self._find(code.digest(), CredentialKind.CODE, wish.client)
        if redirect_uri is not None and redirect_uri != grant.redirect_uri:
            raise InvalidGrantError(reason="the redirect URI is not that of the authorization request")
        challenge = str(create_s256_code_challenge(verifier))
        if not hmac.compare_digest(challenge, grant.challenge):
            raise InvalidGrantError(reason="the code verifier does not fit")
        if grant.pending:
            scopes, audience = _allowed(grant, wish)
            self._require_active(session)
            now = self._clock.time()
            family = Secret.random() if grant.refreshes else None
            refresh_token = _refresh_token(family) if family is not None else None
            tokens, issued = self._issue(session, grant, scopes, audience, refresh_token, now=now)
            entry = _family(family, session, grant, now=now) if family is not None else None
            changed = await self._sessions.update(
                session.id, lambda stored: redeemed(stored, code.digest(), issued, entry, now=now)
            )
            if changed is not None:
                return tokens
        await self._sessions.end_grant(session.id, grant.id, reason="its authorization code came twice")
        raise InvalidGrantError(reason="the code was exchanged before")

    # -- the chain of refresh tokens -------------------------------------------------------------------------------

    async def refresh(self, token: Secret, wish: Wish) -> Tokens:
        """The next tokens of a grant (RFC 6749, section 6). For a token that was spent a moment ago, or whose answer
        was lost, the current ones; for one spent before that the grant ends (RFC 9700, section 4.14.2).

        Raises `InvalidGrantError`, `InvalidTargetError`, `InvalidScopeError`; none of them spends anything.
        """
        if not REFRESH_TOKEN.fullmatch(token.reveal()):
            raise InvalidGrantError(reason="not a refresh token")
        for _ in range(ATTEMPTS):
            session, grant = await self._find(_family_of(token).digest(), CredentialKind.REFRESH, wish.client)
            self._require_active(session)
            scopes, audience = _allowed(grant, wish)
            now = self._clock.time()
            if grant.refresh_token is not None and hmac.compare_digest(token.digest(), grant.refresh_token):
                tokens = await self._rotate(session, grant, token, scopes, audience, now=now)
            elif accepted(grant, token.digest(), now=now):
                tokens = await self._repeat(session, grant, token, scopes, audience, now=now)
            else:
                await self._sessions.end_grant(session.id, grant.id, reason="a spent refresh token came again")
                raise InvalidGrantError(reason="the refresh token was spent long before")
            if tokens is not None:
                await self._sessions.touch(session.id)
                return tokens
        raise StoreUnavailableError(reason=f"the grant was written by others {ATTEMPTS} times")

    async def _rotate(
        self,
        session: Session,
        grant: Grant,
        token: Secret,
        scopes: frozenset[str],
        audience: tuple[str, ...],
        *,
        now: float,
    ) -> Tokens | None:
        successor = _refresh_token(_family_of(token))
        tokens, issued = self._issue(session, grant, scopes, audience, successor, now=now)
        spent = SpentRefreshToken(
            digest=token.digest(), successor=_seal(token, grant, "successor", successor.reveal()), spent_at=now
        )
        return await self._stored(session, tokens, lambda stored: rotated(stored, grant.id, spent, issued, now=now))

    async def _repeat(
        self,
        session: Session,
        grant: Grant,
        token: Secret,
        scopes: frozenset[str],
        audience: tuple[str, ...],
        *,
        now: float,
    ) -> Tokens | None:
        """The grant's current refresh token, which the spent one leads to, and its access token while that has at
        least half of its life left."""
        current = _current(grant, token)
        if grant.access_token is not None:
            kept = json.loads(_open(current, grant, "access_token", grant.access_token))
            access_token, expires_at = Secret(kept["token"]), float(kept["expires_at"])
            credential = session.credential(access_token.digest())
            if (
                credential is not None
                and (credential.scopes, credential.audience) == (scopes, audience)
                and expires_at - now >= (expires_at - credential.created_at) / 2
            ):
                return Tokens(
                    access_token=access_token,
                    refresh_token=current,
                    expires_in=int(expires_at - now),
                    scopes=scopes & session.scopes,
                )
        tokens, issued = self._issue(session, grant, scopes, audience, current, now=now)
        return await self._stored(session, tokens, lambda stored: with_access_token(stored, grant, issued, now=now))

    async def _stored(
        self, session: Session, tokens: Tokens, change: Callable[[Session], Session | None]
    ) -> Tokens | None:
        return tokens if await self._sessions.update(session.id, change) is not None else None

    # -- the end ---------------------------------------------------------------------------------------------------

    async def revoke(self, token: Secret, client: Client) -> None:
        """End the grant whose access or refresh token this is, if it is the client's (RFC 7009, section 2.1): a client
        that gives one token back is done with its user's grant."""
        refresh = REFRESH_TOKEN.fullmatch(token.reveal()) is not None
        kind = CredentialKind.REFRESH if refresh else CredentialKind.BEARER
        try:
            session, grant = await self._find((_family_of(token) if refresh else token).digest(), kind, client)
        except InvalidGrantError:
            return
        await self._sessions.end_grant(session.id, grant.id, reason="revoked by its client")

    # -- shared ----------------------------------------------------------------------------------------------------

    async def _find(self, digest: bytes, kind: CredentialKind, client: Client) -> tuple[Session, Grant]:
        """Session and grant of a credential of that kind, if it is the client's. Raises `InvalidGrantError`."""
        session = await self._store.find_by_credential(digest)
        credential = session.credential(digest) if session is not None else None
        if session is None or credential is None or credential.kind is not kind:
            raise InvalidGrantError(reason=f"no such {kind.value}")
        if credential.expires_at <= self._clock.time():
            raise InvalidGrantError(reason=f"the {kind.value} has expired")
        grant = session.grant(credential.grant)
        if grant is None or grant.client_id != client.id:
            raise InvalidGrantError(reason="the grant is another client's")
        return session, grant

    def _require_active(self, session: Session) -> None:
        if session.state is not SessionState.ACTIVE:
            # The grant stays: when its user has signed in again it goes on.
            raise InvalidGrantError(
                "The user must sign in again.", reason=f"session {session.id} needs its user to sign in again"
            )

    def _issue(
        self,
        session: Session,
        grant: Grant,
        scopes: frozenset[str],
        audience: tuple[str, ...],
        refresh_token: Secret | None,
        *,
        now: float,
    ) -> tuple[Tokens, Issued]:
        """A new access token: for the client, and as it is stored."""
        lifetime = min(self._ttl, session.expires_at - now)
        access_token, credential = issue(
            CredentialKind.BEARER,
            now=now,
            # Clients send a token up to its last moment, and some begin a whole sign-in when one call is refused.
            expires_at=now + lifetime + min(30.0, max(2.0, lifetime / 10)),
            grant=grant.id,
            scopes=scopes,
            audience=audience,
        )
        tokens = Tokens(
            access_token=access_token,
            refresh_token=refresh_token,
            expires_in=max(1, int(lifetime)),
            scopes=scopes & session.scopes,
        )
        if refresh_token is None:
            return tokens, Issued(access_token=credential)
        kept = json.dumps({"token": access_token.reveal(), "expires_at": now + lifetime})
        sealed = _seal(refresh_token, grant, "access_token", kept)
        return tokens, Issued(access_token=credential, refresh_token=refresh_token.digest(), sealed=sealed)


def _allowed(grant: Grant, wish: Wish) -> tuple[frozenset[str], tuple[str, ...]]:
    """The scopes and resources of a new access token. Raises `InvalidScopeError`, `InvalidTargetError`."""
    if wish.scopes is not None and not wish.scopes <= grant.scopes:
        raise InvalidScopeError(reason=f"beyond what was granted: {sorted(wish.scopes - grant.scopes)}")
    if wish.audience is not None and not set(wish.audience) <= set(grant.audience):
        raise InvalidTargetError(reason=f"beyond what was granted: {wish.audience}")
    scopes = grant.scopes if wish.scopes is None else wish.scopes
    return scopes, grant.audience if wish.audience is None else wish.audience


def _refresh_token(family: Secret) -> Secret:
    return Secret(family.reveal() + Secret.random().reveal())


def _family_of(refresh_token: Secret) -> Secret:
    return Secret(refresh_token.reveal()[:FAMILY_CHARACTERS])


def _family(family: Secret, session: Session, grant: Grant, *, now: float) -> Credential:
    return Credential(
        digest=family.digest(),
        kind=CredentialKind.REFRESH,
        created_at=now,
        expires_at=session.expires_at,
        grant=grant.id,
    )


def _current(grant: Grant, token: Secret) -> Secret:
    """The current refresh token, to which each spent one leads by its successor. Raises `InvalidGrantError`."""
    successors = {spent.digest: spent.successor for spent in grant.spent}
    while token.digest() != grant.refresh_token:
        sealed = successors.pop(token.digest(), None)
        if sealed is None:
            raise InvalidGrantError(reason="the chain of refresh tokens is broken")
        token = Secret(_open(token, grant, "successor", sealed))
    return token


def _seal(key: Secret, grant: Grant, field: str, text: str) -> bytes:
    return Keyring.from_secret(key).seal(text.encode(), context(field, grant.id))


def _open(key: Secret, grant: Grant, field: str, sealed: bytes) -> str:
    try:
        return Keyring.from_secret(key).open(sealed, context(field, grant.id)).decode()
    except UnsealError as error:
        raise InvalidGrantError(reason=f"{field} of grant {grant.id}: {error}") from None
