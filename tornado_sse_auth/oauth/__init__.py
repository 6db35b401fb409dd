"""The provider: discovery, sign-in, tokens, ID tokens."""

from .identity_mapper import Identity, IdentityMapper, default_identity_mapper
from .logout_token import LogoutToken
from .outcome import ClientRejected, IdentityRejected, RefreshRejected, Spent, TokenCallFailure, TransientFailure
from .provider import OAuthProvider, Timings
from .sign_in import SIGN_IN_TTL, Callback, SignInAttempt, SignInRequest, safe_return_to
from .token_response import TokenResponse

__all__ = [
    "SIGN_IN_TTL",
    "Callback",
    "ClientRejected",
    "Identity",
    "IdentityMapper",
    "IdentityRejected",
    "LogoutToken",
    "OAuthProvider",
    "RefreshRejected",
    "SignInAttempt",
    "SignInRequest",
    "Spent",
    "Timings",
    "TokenCallFailure",
    "TokenResponse",
    "TransientFailure",
    "default_identity_mapper",
    "safe_return_to",
]
