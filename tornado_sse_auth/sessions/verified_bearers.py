"""What a bearer of somebody else's authorization server opens: a session that stands on the token alone."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from ..identity import Credential, CredentialKind, Session
from ..oauth import BearerVerifier, VerifiedBearer
from .cache import Authenticated
from .credentials import PresentedCredential

__all__ = ["verify_bearer"]


async def verify_bearer(
    verifiers: Sequence[BearerVerifier], presented: PresentedCredential, *, public_url: str
) -> Authenticated | None:
    """The session of a genuine bearer; None where no verifier recognizes it. The first one that does decides.

    Raises `InvalidTokenError`, `ProviderUnavailableError`.
    """
    if presented.kind is CredentialKind.BEARER:
        for verifier in verifiers:
            if verifier.recognizes(presented.secret):
                return _authenticated(presented.digest, await verifier.verify(presented.secret), public_url)
    return None


def _authenticated(digest: bytes, bearer: VerifiedBearer, public_url: str) -> Authenticated:
    resources = tuple(uri for uri in bearer.audience if uri.removesuffix("/").startswith(f"{public_url}/"))
    credential = Credential(
        digest=digest,
        kind=CredentialKind.BEARER,
        created_at=bearer.issued_at,
        expires_at=bearer.usable_until,
        # One that names the server as a whole, or in words of the authorization server's own, is good at every route.
        audience=resources if len(resources) == len(bearer.audience) else (),
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
