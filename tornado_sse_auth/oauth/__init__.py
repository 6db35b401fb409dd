"""The provider: discovery, sign-in, tokens, ID tokens."""

from .bearer_verifier import BearerVerifier, VerifiedBearer
from .http import Certificate
from .id_token import claimed_subject
from .identity_mapper import Identity, IdentityMapper, default_identity_mapper
from .jwt_bearer import JWTBearerVerifier
from .logout_token import LogoutToken
from .outcome import (
    AnotherSubject,
    ClientRejected,
    IdentityRejected,
    RefreshRejected,
    Spent,
    TokenCallFailure,
    TransientFailure,
)
from .provider import OAuthProvider, Timings
from .sign_in import SIGN_IN_TTL, Callback, SignInAttempt, SignInRequest, safe_return_to
from .token_response import TokenResponse

__all__ = [
    "SIGN_IN_TTL",
    "AnotherSubject",
    "BearerVerifier",
    "Callback",
    "Certificate",
    "ClientRejected",
    "Identity",
    "IdentityMapper",
    "IdentityRejected",
    "JWTBearerVerifier",
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
    "VerifiedBearer",
    "claimed_subject",
    "default_identity_mapper",
    "safe_return_to",
]
