"""What the endpoints refuse with: the codes of RFC 6749, 7591, 8707 and OpenID Connect Core, as answers of ours.

OAuthError
├── InvalidClientError            401
├── InvalidGrantError             400
├── UnauthorizedClientError       400
├── UnsupportedGrantTypeError     400
├── UnsupportedResponseTypeError  400
├── InvalidScopeError             400
├── InvalidTargetError            400
├── InvalidRedirectURIError       400
├── InvalidClientMetadataError    400
├── LoginRequiredError            400
└── ConsentRequiredError          400
"""

from __future__ import annotations

from ..errors import AuthError

__all__ = [
    "ConsentRequiredError",
    "InvalidClientError",
    "InvalidClientMetadataError",
    "InvalidGrantError",
    "InvalidRedirectURIError",
    "InvalidScopeError",
    "InvalidTargetError",
    "LoginRequiredError",
    "OAuthError",
    "UnauthorizedClientError",
    "UnsupportedGrantTypeError",
    "UnsupportedResponseTypeError",
]


class OAuthError(AuthError):
    """Abstract: an error with a code of the OAuth registry."""

    status = 400


class InvalidClientError(OAuthError):
    """The client is unknown or did not authenticate (RFC 6749, section 5.2)."""

    status = 401
    code = "invalid_client"
    default_message = "The client is unknown, or its authentication failed."


class InvalidGrantError(OAuthError):
    """The code or refresh token is unknown, spent, expired, revoked or another client's (RFC 6749, section 5.2)."""

    code = "invalid_grant"
    default_message = "The code or refresh token is unknown, spent, expired or revoked."


class UnauthorizedClientError(OAuthError):
    """The client is not registered for this grant type (RFC 6749, section 5.2)."""

    code = "unauthorized_client"
    default_message = "The client is not registered for this grant type."


class UnsupportedGrantTypeError(OAuthError):
    """The token endpoint does not know the grant type (RFC 6749, section 5.2)."""

    code = "unsupported_grant_type"
    default_message = "The grant type is authorization_code or refresh_token."


class UnsupportedResponseTypeError(OAuthError):
    """The authorization endpoint does not know the response type (RFC 6749, section 4.1.2.1)."""

    code = "unsupported_response_type"
    default_message = "The response type is code."


class InvalidScopeError(OAuthError):
    """A scope is unknown, malformed, or beyond what was granted (RFC 6749, section 5.2)."""

    code = "invalid_scope"
    default_message = "A scope is unknown or was not granted."


class InvalidTargetError(OAuthError):
    """The resource is none that this server protects, or none of the grant (RFC 8707, section 2)."""

    code = "invalid_target"
    default_message = "The resource is unknown or was not granted."


class InvalidRedirectURIError(OAuthError):
    """A redirect URI that cannot be registered (RFC 7591, section 3.2.2)."""

    code = "invalid_redirect_uri"
    default_message = "A redirect URI is not acceptable."


class InvalidClientMetadataError(OAuthError):
    """A client's description of itself that cannot be registered (RFC 7591, section 3.2.2)."""

    code = "invalid_client_metadata"
    default_message = "The client metadata is not acceptable."


class LoginRequiredError(OAuthError):
    """`prompt=none`, and nobody is signed in (OpenID Connect Core, section 3.1.2.6)."""

    code = "login_required"
    default_message = "The user must sign in."


class ConsentRequiredError(OAuthError):
    """`prompt=none`, and consent is asked for each time (OpenID Connect Core, section 3.1.2.6)."""

    code = "consent_required"
    default_message = "The user must agree."
