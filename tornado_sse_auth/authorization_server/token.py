"""The token endpoint: codes and refresh tokens for tokens (RFC 6749, sections 4.1.3 and 6)."""

from __future__ import annotations

from collections.abc import Mapping

from authlib.oauth2.rfc7636.challenge import CODE_VERIFIER_PATTERN

from ..errors import InvalidRequestError
from ..identity import Secret
from ..web.guards import PeerLimiter
from ..web.responses import Answer
from .client_authentication import authenticate_client
from .clients import Client, ClientDirectory
from .endpoint import Endpoint, EndpointRequest, json_answer, read_form
from .errors import InvalidClientError, InvalidGrantError, UnauthorizedClientError, UnsupportedGrantTypeError
from .grants import GrantManager, Tokens, Wish
from .resources import Resources

__all__ = ["TokenEndpoint"]


class TokenEndpoint(Endpoint):
    """Answers with an access token and, where the client refreshes, the next refresh token. `failures` limits the peers
    that guess."""

    methods = ("POST",)

    def __init__(
        self, clients: ClientDirectory, grants: GrantManager, resources: Resources, failures: PeerLimiter
    ) -> None:
        self._clients = clients
        self._grants = grants
        self._resources = resources
        self._failures = failures

    async def answer(self, request: EndpointRequest) -> Answer:
        """Raises the errors of RFC 6749, section 5.2, and RFC 8707."""
        form = read_form(request)
        try:
            client = await authenticate_client(request, form, self._clients)
            tokens = await self._tokens(form, client)
        except (InvalidClientError, InvalidGrantError):
            self._failures.hit(request.remote)
            raise
        document: dict[str, object] = {
            "access_token": tokens.access_token.reveal(),
            "token_type": "Bearer",
            "expires_in": tokens.expires_in,
            "scope": " ".join(sorted(tokens.scopes)),
        }
        if tokens.refresh_token is not None:
            document["refresh_token"] = tokens.refresh_token.reveal()
        await self._clients.used(client, granted=True)
        return json_answer(document)

    async def _tokens(self, form: Mapping[str, str], client: Client) -> Tokens:
        kind = _required(form, "grant_type")
        resource = form.get("resource")
        wish = Wish(
            client=client,
            scopes=self._resources.requested(form.get("scope")),
            audience=None if resource is None else self._resources.audience(resource),
        )
        if kind == "authorization_code":
            code, verifier = Secret(_required(form, "code")), _required(form, "code_verifier")
            if not CODE_VERIFIER_PATTERN.fullmatch(verifier):
                raise InvalidRequestError("code_verifier is 43 to 128 characters (RFC 7636, section 4.1).")
            return await self._grants.redeem(code, wish, redirect_uri=form.get("redirect_uri"), verifier=verifier)
        if kind == "refresh_token":
            if not client.refreshes:
                raise UnauthorizedClientError()
            return await self._grants.refresh(Secret(_required(form, "refresh_token")), wish)
        raise UnsupportedGrantTypeError()


def _required(form: Mapping[str, str], name: str) -> str:
    value = form.get(name)
    if value is None:
        raise InvalidRequestError(f"{name} is missing.")
    return value
