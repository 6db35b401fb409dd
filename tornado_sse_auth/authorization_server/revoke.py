"""The revocation endpoint (RFC 7009)."""

from __future__ import annotations

from ..errors import InvalidRequestError
from ..identity import Secret
from ..web.guards import PeerLimiter
from ..web.responses import Answer
from .client_authentication import authenticate_client
from .clients import ClientDirectory
from .endpoint import Endpoint, EndpointRequest, read_form
from .errors import InvalidClientError
from .grants import GrantManager

__all__ = ["RevocationEndpoint"]


class RevocationEndpoint(Endpoint):
    """Ends the grant of an access or refresh token, its streams with it. `token_type_hint` is not needed: the two kinds
    of token differ in form."""

    methods = ("POST",)

    def __init__(self, clients: ClientDirectory, grants: GrantManager, failures: PeerLimiter) -> None:
        self._clients = clients
        self._grants = grants
        self._failures = failures

    async def answer(self, request: EndpointRequest) -> Answer:
        """200, also for a token that is unknown or another client's (section 2.2), which loses nothing."""
        form = read_form(request)
        try:
            client = await authenticate_client(request, form, self._clients)
        except InvalidClientError:
            self._failures.hit(request.remote)
            raise
        token = form.get("token")
        if token is None:
            raise InvalidRequestError("token is missing.")
        await self._grants.revoke(Secret(token), client)
        return Answer(200, b"")
