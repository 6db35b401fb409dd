"""What a bearer of somebody else's authorization server opens: a session that stands on the token alone."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from ..identity import Credential, CredentialKind, Session
from ..oauth import BearerVerifier, VerifiedBearer
from .cache import Authenticated
from .credentials import PresentedCredential

__all__ = ["verify_bearer"]


async def verify_bearer(verifiers: Sequence[BearerVerifier], presented: PresentedCredential) -> Authenticated | None:
    """The session of a genuine bearer; None where no verifier recognizes it. The first one that does decides.

    Raises `InvalidTokenError`, `ProviderUnavailableError`.
    """
    if presented.kind is CredentialKind.BEARER:
        for verifier in verifiers:
            if verifier.recognizes(presented.secret):
                return _authenticated(presented.digest, await verifier.verify(presented.secret))
    return None


def _authenticated(digest: bytes, bearer: VerifiedBearer) -> Authenticated:
    credential = Credential(
        digest=digest, kind=CredentialKind.BEARER, created_at=bearer.issued_at, expires_at=bearer.usable_until
    )
    identity = bearer.identity
    session = Session(
        # The same for every request with this token, and no way back to it.
        id=hashlib.sha256(b"session of a bearer" + digest).hexdigest()[:32],
        user_id=identity.user_id,
        created_at=bearer.issued_at,
        last_seen=bearer.issued_at,
        expires_at=bearer.expires_at,
        idle_expires_at=bearer.expires_at,
        scopes=identity.scopes,
        permissions=identity.permissions,
        subscription=identity.subscription,
        claims=identity.claims,
        credentials=(credential,),
        client=bearer.client_id,
        stored=False,
    )
    return Authenticated(session, credential)
