"""Bearers of somebody else's authorization server: what it takes to judge them, and what a good one says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from ..identity import Secret
from .identity_mapper import Identity

__all__ = ["BearerVerifier", "VerifiedBearer"]


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedBearer:
    """What a genuine bearer says: whose it is, to which client it was issued, and until when. Times are epoch seconds.

    `audience`: the names of this server that it was issued for. `usable_until`: until when requests with it are served,
    a little beyond `expires_at` where clocks may differ. Streams opened with it end at `expires_at`.
    """

    identity: Identity
    client_id: str
    audience: tuple[str, ...]
    issued_at: float
    expires_at: float
    usable_until: float


class BearerVerifier(Protocol):
    """Judges the access tokens of one authorization server that is not ours, say by asking it (RFC 7662).

    The middleware starts and closes it. `issuer` is that server's, which the protected resource metadata names. A
    verifier must check that a token is meant for this server (RFC 8707): one that merely exists opens nothing.
    """

    issuer: str

    def recognizes(self, token: Secret) -> bool:
        """Whether `token` claims to be of this issuer. The first verifier to say so has the last word on it. Costs no
        wait, and promises nothing."""
        ...

    async def verify(self, token: Secret) -> VerifiedBearer:
        """What the token says. Raises `InvalidTokenError`, or `ProviderUnavailableError` where that cannot be known
        now. Bounds its waits itself."""
        ...

    async def start(self) -> None:
        """Called once, before the first token. Raises `ConfigurationError` for what cannot work; an authorization
        server that is away is no reason not to start."""
        ...

    async def close(self) -> None:
        """Ends what it holds. Twice is once."""
        ...
