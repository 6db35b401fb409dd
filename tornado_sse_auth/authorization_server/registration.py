"""The registration endpoint (RFC 7591)."""

from __future__ import annotations

from typing import Any

from ..audit import AuditLog
from ..clock import Clock
from ..errors import InvalidRequestError
from ..web.guards import PeerLimiter
from ..web.json_body import read_json_object
from ..web.responses import Answer
from .client_metadata import read_client_metadata
from .clients import ClientDirectory
from .endpoint import Endpoint, EndpointRequest, json_answer
from .errors import InvalidClientMetadataError

__all__ = ["RegistrationEndpoint"]


class RegistrationEndpoint(Endpoint):
    """Gives an id to whoever asks: what a client may do is for users to say, on the consent page. `attempts` limits the
    peers that flood it, `max_json_depth` the levels of what they send."""

    methods = ("POST",)

    def __init__(
        self,
        clients: ClientDirectory,
        attempts: PeerLimiter,
        clock: Clock,
        audit: AuditLog,
        *,
        max_json_depth: int,
    ) -> None:
        self._clients = clients
        self._attempts = attempts
        self._clock = clock
        self._audit = audit
        self._max_json_depth = max_json_depth

    async def answer(self, request: EndpointRequest) -> Answer:
        """201 with the metadata as registered (section 3.2.1)."""
        self._attempts.hit(request.remote)
        if request.headers.get("Content-Type", "").partition(";")[0].strip().lower() != "application/json":
            raise InvalidRequestError("The body is application/json.")
        try:
            described = read_json_object(request.body, max_depth=self._max_json_depth)
        except InvalidRequestError as error:
            raise InvalidClientMetadataError(error.public_message, reason=error.reason) from None
        # RFC 7591, section 2: a client that names no method has a secret.
        metadata = read_client_metadata(described, default_auth_method="client_secret_basic")
        client_id, secret = await self._clients.register(metadata)
        document: dict[str, Any] = {
            **metadata.document(),
            "client_id": client_id,
            "client_id_issued_at": int(self._clock.time()),
        }
        if secret is not None:
            document |= {"client_secret": secret.reveal(), "client_secret_expires_at": 0}
        self._audit.write("client-registration", outcome="success", reason=f"client {client_id}")
        return json_answer(document, 201)
