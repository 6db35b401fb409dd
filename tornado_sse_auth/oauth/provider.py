"""The provider as the rest of the program sees it: where to sign in, what a code or a token gives, who it is."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol

from authlib.oauth2.rfc6749.parameters import prepare_grant_uri

from ..clock import Clock, SystemClock
from ..errors import ConfigurationError, InvalidRequestError, ProviderUnavailableError
from ..identity import Secret
from .client_authentication import ClientCredentials
from .client_endpoints import ClientEndpoints
from .discovery import discover, fetch_document
from .http import Certificate, HTTPClient
from .id_token import SignedToken, check_id_token_claims, check_userinfo_claims
from .key_source import KeySource
from .logout_token import LOGOUT_JWT, LogoutToken
from .metadata import ProviderMetadata, check_issuer
from .outcome import IdentityRejected, RefreshRejected, TokenCallFailure, TransientFailure
from .remote_document import RemoteDocument
from .sign_in import Callback, SignInRequest, read_scope
from .token_response import TokenResponse

__all__ = ["OAuthProvider", "Timings"]

logger = logging.getLogger(__name__)
METADATA_AGE = 3600.0


class Timings(Protocol):
    """Where durations go. The names are those of the package's table of timers."""

    def timing(self, name: str, seconds: float) -> None:
        """`seconds` is how long one `name` took."""
        ...


class OAuthProvider:
    """The OAuth 2 or OpenID Connect server where users sign in. `start()` it before use and `close()` it after.

    `scopes`: space-separated, what is asked for where nothing else is said. `timeout`: seconds for any one call,
    `refresh_timeout`: seconds for a whole refresh. Raises `ConfigurationError` for values that cannot work.
    `metrics` may be set until `start()`.
    """

    def __init__(
        self,
        *,
        issuer: str,
        client_id: str,
        client_secret: str | Secret | None = None,
        scopes: str = "openid offline_access profile",
        timeout: float = 10.0,
        refresh_timeout: float = 60.0,
        clock: Clock | None = None,
        metrics: Timings | None = None,
    ) -> None:
        check_issuer(issuer)
        if not client_id:
            raise ConfigurationError("client_id is empty")
        for name, seconds in (("timeout", timeout), ("refresh_timeout", refresh_timeout)):
            if not 0 < seconds < math.inf:
                raise ConfigurationError(f"{name} must be above zero and finite")
        try:
            self.scopes = read_scope(" ".join(scopes.split()))
        except InvalidRequestError:
            raise ConfigurationError("scopes must be space-separated names (RFC 6749, section 3.3)") from None
        secret = Secret(client_secret) if isinstance(client_secret, str) else client_secret
        self.issuer = issuer
        self.client_id = client_id
        self.metrics = metrics
        self._metadata_alarm: str | None = None
        self._credentials = ClientCredentials(client_id, secret or None)
        self._timeout = timeout
        self._refresh_timeout = refresh_timeout
        self._clock = clock or SystemClock()
        self._http = HTTPClient(self._clock)
        self._metadata = RemoteDocument("metadata", self._load_metadata, clock=self._clock, max_age=METADATA_AGE)
        self._keys = KeySource(self._load_key_set, clock=self._clock)
        self._endpoints = ClientEndpoints(self._http, self._credentials, self._current_metadata, clock=self._clock)

    async def start(self) -> None:
        """Reads the metadata, within `timeout`. A provider that cannot be reached is a warning: later calls try again.

        Raises `ConfigurationError` where the metadata is another issuer's, names endpoints that must not be used, or
        moves elsewhere.
        """
        try:
            await self._metadata.reload()
        except ProviderUnavailableError as error:
            logger.warning("%s cannot be reached; sign-ins and refreshes will try again: %s", self.issuer, error.reason)

    async def close(self) -> None:
        """Cancels what is loading and closes all connections. Twice is once."""
        await self._metadata.close()
        await self._keys.close()
        await self._http.aclose()

    @property
    def alarm(self) -> str | None:
        """None, or what an operator has to put right: the provider does not accept this client, or is not the one that
        was configured."""
        return self.client_alarm or self._metadata_alarm

    @property
    def client_alarm(self) -> str | None:
        """What the provider says against this client; None while it accepts it."""
        return self._endpoints.alarm

    @property
    def timeout(self) -> float:
        """Seconds that a caller waits for one call."""
        return self._timeout

    @property
    def openid(self) -> bool:
        """True where sign-ins give ID tokens."""
        return "openid" in self.scopes

    def scopes_for(self, scope: str | None) -> frozenset[str]:
        """What to ask for when a client wishes `scope`: that, and what signing in itself needs.

        Raises `InvalidRequestError` where it is malformed.
        """
        if scope is None:
            return self.scopes
        return read_scope(scope) | (self.scopes & {"openid", "offline_access"})

    async def authorization_url(self, request: SignInRequest, redirect_uri: str) -> str:
        """Where the browser goes (RFC 6749, section 4.1.1; RFC 7636). Raises `ProviderUnavailableError`."""
        metadata = await self._current_metadata()
        attempt = request.attempt
        prompt = metadata.prompt(request.prompt) if request.prompt is not None else None
        prompts = [prompt] if prompt is not None else []
        if {"openid", "offline_access"} <= attempt.scopes:
            prompts.append("consent")
        return str(
            prepare_grant_uri(
                metadata.authorization_endpoint,
                self.client_id,
                "code",
                redirect_uri=redirect_uri,
                scope=" ".join(sorted(attempt.scopes)),
                state=attempt.state.reveal(),
                nonce=attempt.nonce if "openid" in attempt.scopes else None,
                code_challenge=attempt.challenge,
                code_challenge_method="S256",
                login_hint=request.login_hint,
                # Without it offline_access is to be ignored (OpenID Connect Core, section 11).
                prompt=" ".join(prompts) or None,
            )
        )

    async def accept_callback(self, callback: Callback) -> Secret:
        """The code of a good authorization answer; raises what `Callback.accept` raises."""
        metadata = await self._current_metadata()
        return callback.accept(issuer=self.issuer, iss_parameter=metadata.iss_parameter)

    async def exchange_code(self, code: Secret, *, redirect_uri: str, verifier: Secret) -> TokenResponse:
        """The token set for an authorization code (RFC 6749, section 4.1.3), within `timeout`.

        Raises `InvalidRequestError` where the code is refused, `ProviderUnavailableError` for every other failure (its
        cause is the `TokenCallFailure`), `IdentityRejected` where the ID token lacks.
        """
        begun = self._clock.monotonic()
        try:
            response = await self._endpoints.token(
                {
                    "grant_type": "authorization_code",
                    "code": code.reveal(),
                    "redirect_uri": redirect_uri,
                    "code_verifier": verifier.reveal(),
                },
                timeout=self._timeout,
            )
        except RefreshRejected as error:
            raise InvalidRequestError(
                "The sign-in is no longer valid; start it again.", reason=f"the code was refused: {error.reason}"
            ) from error
        except TokenCallFailure as error:
            retry_after = error.retry_after if isinstance(error, TransientFailure) else None
            raise ProviderUnavailableError(reason=error.reason, retry_after=retry_after or 2.0) from error
        finally:
            self._timing("token.exchange", begun)
        if self.openid and response.id_token is None:
            raise IdentityRejected(reason="the provider gave no ID token")
        return response

    async def refresh(
        self, refresh_token: Secret, *, before_sending: Callable[[], None] | None = None
    ) -> TokenResponse:
        """The next token set (RFC 6749, section 6), within `refresh_timeout`. Raises the failures of `outcome`, and
        what `before_sending` raises, which is called when the first byte is about to leave: then none does."""
        return await self._endpoints.token(
            {"grant_type": "refresh_token", "refresh_token": refresh_token.reveal()},
            timeout=self._refresh_timeout,
            presented=refresh_token,
            before_sending=before_sending,
        )

    async def verify_id_token(
        self, id_token: Secret, *, nonce: str | None, access_token: Secret | None = None
    ) -> Mapping[str, Any]:
        """The claims of a genuine ID token for us (OpenID Connect Core, section 3.1.3.7); at a refresh `nonce` is None.

        Raises `IdentityRejected`, or `ProviderUnavailableError` where the keys cannot be had.
        """
        token, claims = await self._verified(id_token)
        check_id_token_claims(
            claims,
            algorithm=token.header["alg"],
            issuer=self.issuer,
            client_id=self.client_id,
            now=self._clock.time(),
            nonce=nonce,
            access_token=access_token,
        )
        return claims

    async def verify_logout_token(self, logout_token: Secret) -> LogoutToken:
        """What a genuine logout token for us says (OpenID Connect Back-Channel Logout 1.0, section 2.6). Whether its
        `jti` was used before is for the caller to see.

        Raises `IdentityRejected`, or `ProviderUnavailableError` where the keys cannot be had.
        """
        _, claims = await self._verified(logout_token, explicit_type=LOGOUT_JWT)
        return LogoutToken.read(claims, issuer=self.issuer, client_id=self.client_id, now=self._clock.time())

    async def userinfo(self, access_token: Secret, *, subject: str | None) -> Mapping[str, Any]:
        """More claims about the user (OpenID Connect Core, section 5.3); empty where the provider has no userinfo.

        `subject` is the ID token's; None where there was none, and then `iss` is put in and `sub` is what userinfo
        says. Raises `IdentityRejected`, of which `AnotherSubject` is one (section 5.3.2), `ProviderUnavailableError`.
        """
        metadata = await self._current_metadata()
        if metadata.userinfo_endpoint is None:
            return {}
        claims = await fetch_document(
            self._http,
            metadata.userinfo_endpoint,
            "userinfo",
            timeout=self._timeout,
            headers={"Authorization": f"Bearer {access_token.reveal()}"},
        )
        check_userinfo_claims(claims, subject=subject)
        # Its answer is unsigned: what identifies stays the ID token's.
        return {**claims, "iss": self.issuer}

    async def revoke(self, token: Secret, hint: Literal["refresh_token", "access_token"]) -> None:
        """Tells the provider that a token is done with (RFC 7009), within `timeout`. A failure is only logged."""
        await self._endpoints.revoke(token, hint, timeout=self._timeout)

    async def check(self) -> None:
        """Asks for the metadata now, once for all who check at the same time. Raises `ProviderUnavailableError`, whose
        cause is a `ConfigurationError` where the provider is not the one that was configured."""
        begun = self._clock.monotonic()
        try:
            await self._metadata.reload()
        except ConfigurationError as error:
            raise ProviderUnavailableError(reason=str(error)) from error
        finally:
            self._timing("provider.check", begun)

    async def check_keys(self) -> None:
        """Asks for the key set now. Raises `ProviderUnavailableError`."""
        await self._keys.reload()

    async def check_token_endpoint(self) -> None:
        """Asks the token endpoint for what it must refuse, which spends nothing; sets `alarm` where it does not accept
        this client. Raises `ProviderUnavailableError`."""
        await self._endpoints.check(timeout=self._timeout)

    @property
    def certificate(self) -> Certificate | None:
        """The certificate that the provider last showed; None over plain http."""
        return self._http.certificate

    async def _verified(self, token: Secret, *, explicit_type: str | None = None) -> tuple[SignedToken, dict[str, Any]]:
        metadata = await self._current_metadata()
        signed = SignedToken.parse(token, metadata.signing_algorithms, explicit_type=explicit_type)
        return signed, signed.verify(await self._keys.find(signed.header))

    async def _current_metadata(self) -> ProviderMetadata:
        try:
            return await self._metadata.get()
        except ConfigurationError as error:
            # It could not be reached at the start, and now shows itself to be the wrong one.
            logger.error("the provider cannot be used: %s", error)  # noqa: TRY400 - the text says all
            raise ProviderUnavailableError(reason=str(error)) from error

    async def _load_metadata(self) -> ProviderMetadata:
        try:
            metadata = await discover(self._http, self.issuer, openid=self.openid, timeout=self._timeout)
            self._credentials.method(metadata.authentication_methods)
        except ConfigurationError as error:
            self._metadata_alarm = str(error)
            raise
        self._metadata_alarm = None
        return metadata

    async def _load_key_set(self) -> Mapping[str, Any]:
        metadata = await self._current_metadata()
        if metadata.jwks_uri is None:
            raise ProviderUnavailableError(reason="the provider's metadata has no jwks_uri")
        return await fetch_document(self._http, metadata.jwks_uri, "key set", timeout=self._timeout)

    def _timing(self, name: str, begun: float) -> None:
        if self.metrics is not None:
            self.metrics.timing(name, self._clock.monotonic() - begun)
