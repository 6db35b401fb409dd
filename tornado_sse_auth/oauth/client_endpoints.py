"""The provider's endpoints at which we show which client we are: token and revocation."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Literal

from ..clock import Clock
from ..errors import ProviderUnavailableError
from ..identity import Secret
from .client_authentication import ClientCredentials
from .http import Answer, HTTPClient, NoAnswer
from .metadata import ProviderMetadata
from .outcome import ClientRejected, Spent, TransientFailure
from .token_response import CLIENT_REFUSED, TokenResponse, read_refusal, read_token_answer

__all__ = ["ClientEndpoints"]

logger = logging.getLogger(__name__)
NO_GRANT_TYPE = "urn:tornado-sse-auth:no-grant"


class ClientEndpoints:
    """Calls them, and remembers what the provider has against this client. `metadata` gives the newest, and raises
    `ProviderUnavailableError` where there is none."""

    def __init__(
        self,
        http: HTTPClient,
        credentials: ClientCredentials,
        metadata: Callable[[], Awaitable[ProviderMetadata]],
        *,
        clock: Clock,
    ) -> None:
        self._http = http
        self._credentials = credentials
        self._metadata = metadata
        self._clock = clock
        self._refused_without_grant = False
        self.alarm: str | None = None
        """What the provider says against this client; None while it accepts it."""

    async def token(
        self,
        parameters: Mapping[str, str],
        *,
        timeout: float,
        presented: Secret | None = None,
        before_sending: Callable[[], None] | None = None,
    ) -> TokenResponse:
        """The answer of the token endpoint (RFC 6749, section 5.1), within `timeout` seconds in all.

        Raises the failures of `outcome`, and what `before_sending` raises, which is called when the first byte is
        about to leave: then none does.
        """
        begun = self._clock.monotonic()
        try:
            async with asyncio.timeout(timeout):
                metadata = await self._metadata()
        except TimeoutError:
            raise TransientFailure("no metadata in time", spent=Spent.UNSPENT) from None
        except ProviderUnavailableError as error:
            raise TransientFailure(error.reason or error.code, spent=Spent.UNSPENT) from error
        left = max(0.0, timeout - (self._clock.monotonic() - begun))
        try:
            answer = await self._post(
                metadata.token_endpoint, parameters, metadata, timeout=left, before_sending=before_sending
            )
        except NoAnswer as error:
            spent = Spent.UNKNOWN if error.sent else Spent.UNSPENT
            raise TransientFailure(error.reason, spent=spent) from error
        try:
            response = read_token_answer(answer, presented=presented)
        except ClientRejected as error:
            self.alarm = error.reason
            raise
        self.alarm = None
        self._refused_without_grant = False
        return response

    async def revoke(self, token: Secret, hint: Literal["refresh_token", "access_token"], *, timeout: float) -> None:
        """Tells the provider that a token is done with (RFC 7009), within `timeout`. A failure is only logged."""
        try:
            metadata = await self._metadata()
            if metadata.revocation_endpoint is None:
                return
            answer = await self._post(
                metadata.revocation_endpoint,
                {"token": token.reveal(), "token_type_hint": hint},
                metadata,
                timeout=timeout,
            )
        except (ProviderUnavailableError, NoAnswer) as error:
            logger.warning("a token could not be revoked at the provider: %s", error.reason)
            return
        if not answer.ok:
            logger.warning("a token could not be revoked at the provider: it answered %d", answer.status)

    async def check(self, *, timeout: float) -> None:
        """Asks the token endpoint for a grant of a type that does not exist (RFC 6749, section 4.5): nothing is spent,
        no attempt of anybody's fails, and any error in the words of RFC 6749, section 5.2, shows that it works.

        Sets `alarm` where the provider does not accept this client. Raises `ProviderUnavailableError`.
        """
        metadata = await self._metadata()
        try:
            answer = await self._post(metadata.token_endpoint, {"grant_type": NO_GRANT_TYPE}, metadata, timeout=timeout)
        except NoAnswer as error:
            raise ProviderUnavailableError(reason=f"token endpoint: {error.reason}") from error
        code = read_refusal(answer)
        if code in CLIENT_REFUSED:
            self.alarm = f"the token endpoint answered {code}"
            self._refused_without_grant = True
        elif self._refused_without_grant:  # the very request that was refused for its client no longer is
            self.alarm = None
            self._refused_without_grant = False

    async def _post(
        self,
        url: str,
        parameters: Mapping[str, str],
        metadata: ProviderMetadata,
        *,
        timeout: float,
        before_sending: Callable[[], None] | None = None,
    ) -> Answer:
        headers, body = self._credentials.form(url, parameters, metadata.authentication_methods)
        return await self._http.request(
            "POST", url, timeout=timeout, headers=headers, body=body, before_sending=before_sending
        )
