"""Checks of the provider. None of them fails: sessions are valid by themselves, and streams go on without it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from ..clock import Clock
from ..errors import ConfigurationError, ProviderUnavailableError
from ..oauth import OAuthProvider
from ..observations import Observations
from .check import Check, milliseconds, reason_of
from .report import Answer, Measurement, Status, Trouble

__all__ = ["CertificateCheck", "ClientCheck", "ProviderCheck", "ProviderKeysCheck", "TokenEndpointCheck"]

DAY = 86_400.0
REST = 10.0  # seconds for which a good answer is enough: these are requests to somebody else's server
LONGEST_REST = 60.0
SOON = 14 * DAY


class ProviderCheck(Check):
    """The provider's metadata, asked for anew."""

    name = "provider"
    component = "component"

    def __init__(self, provider: OAuthProvider, observations: Observations) -> None:
        self._provider = provider
        self._observations = observations

    async def ask(self) -> Answer:
        try:
            await self._provider.check()
        except ProviderUnavailableError as error:
            if not isinstance(error.__cause__, ConfigurationError):
                raise
            trouble = Trouble(
                what="the provider has said of itself what is not to be used",
                detail="another issuer, or endpoints that are not safe; the log says which",
                hurts="servers that start now refuse to, and this one goes on with what the provider said before",
                remedy="compare --issuer with the issuer that the provider's metadata names",
            )
            return Answer(status=Status.WARN, trouble=trouble)
        return Answer(measurements=self._latency())

    def unanswered(self, reason: str) -> Answer:
        trouble = Trouble(
            what="the sign-in provider has not answered as it should",
            detail=reason,
            hurts="sign-ins wait and tokens are not refreshed, while sessions and streams go on",
            remedy="look at the provider's own status, and at the network to it",
        )
        return Answer(status=Status.WARN, trouble=trouble, measurements=self._latency())

    def _latency(self) -> tuple[Measurement, ...]:
        seen = self._observations.timing_of("provider.check")
        if not seen.count:
            return ()
        return (milliseconds("p50", seen.p50), milliseconds("p95", seen.p95), milliseconds("p99", seen.p99))


class ProviderKeysCheck(Check):
    """The provider's key set, fetched anew."""

    name = "provider_keys"
    component = "component"

    def __init__(self, provider: OAuthProvider) -> None:
        self._provider = provider

    async def ask(self) -> Answer:
        try:
            await self._provider.check_keys()
        except ProviderUnavailableError as error:
            return _rested(self.unanswered(reason_of(error)), error)
        return Answer(rest=REST)

    def unanswered(self, reason: str) -> Answer:
        trouble = Trouble(
            what="the provider's keys have not been readable",
            detail=reason,
            hurts="sign-ins fail as soon as it signs with a key that is not known yet",
            remedy="look at the provider's own status, and at the key set that its metadata names",
        )
        return Answer(status=Status.WARN, trouble=trouble)


class TokenEndpointCheck(Check):
    """A request to the token endpoint that cannot succeed. `pause()`: seconds for which the provider is to be left
    alone."""

    name = "token_endpoint"
    component = "component"

    def __init__(self, provider: OAuthProvider, pause: Callable[[], float]) -> None:
        self._provider = provider
        self._pause = pause

    async def ask(self) -> Answer:
        pause = self._pause()
        if pause > 0:
            trouble = Trouble(
                what="the provider's token endpoint has been left alone",
                detail=f"for {pause:.0f} s more, at its own wish or after failures in a row",
                hurts="tokens are not refreshed meanwhile, and streams go on",
                remedy="look at the provider's own status and at its limits for this client",
            )
            return Answer(status=Status.WARN, trouble=trouble)
        try:
            await self._provider.check_token_endpoint()
        except ProviderUnavailableError as error:
            return _rested(self.unanswered(reason_of(error)), error)
        return Answer(rest=REST)

    def unanswered(self, reason: str) -> Answer:
        trouble = Trouble(
            what="the provider's token endpoint has not worked",
            detail=reason,
            hurts="nobody can complete a sign-in and tokens are not refreshed, while sessions and streams go on",
            remedy="look at the provider's own status, and at the network to it",
        )
        return Answer(status=Status.WARN, trouble=trouble)


def _rested(answer: Answer, error: ProviderUnavailableError) -> Answer:
    """The answer, and the pause that the provider has asked for."""
    rest = min(max(1.0, error.retry_after), LONGEST_REST)
    return Answer(status=answer.status, trouble=answer.trouble, measurements=answer.measurements, rest=rest)


class ClientCheck(Check):
    """Whether the provider accepts this server as its client."""

    name = "client"
    component = "component"

    def __init__(self, provider: OAuthProvider) -> None:
        self._provider = provider

    async def ask(self) -> Answer:
        if self._provider.client_alarm is None:
            return Answer()
        trouble = Trouble(
            what="the provider has refused this server as a client",
            detail=self._provider.client_alarm,
            hurts="nobody can sign in and tokens are not refreshed, while sessions and streams go on",
            remedy="compare --client-id and --client-secret with what is registered at the provider",
        )
        return Answer(status=Status.WARN, trouble=trouble)


class CertificateCheck(Check):
    """When the provider's certificate ends."""

    name = "certificate"
    component = "component"

    def __init__(self, provider: OAuthProvider, clock: Clock) -> None:
        self._provider = provider
        self._clock = clock

    async def ask(self) -> Answer:
        certificate = self._provider.certificate
        if certificate is None:
            return Answer()
        left = certificate.ends_at - self._clock.time()
        end = datetime.fromtimestamp(certificate.ends_at, UTC).isoformat(timespec="seconds")
        measurements = (Measurement("end", end), Measurement("left", round(left / DAY, 1), "d"))
        # Certificates that live for days are renewed within days.
        if left > min(SOON, (certificate.ends_at - certificate.begins_at) / 5):
            return Answer(measurements=measurements)
        trouble = Trouble(
            what="the provider's certificate has been near its end",
            detail=f"{max(0.0, left) / DAY:.1f} days are left",
            hurts="after it nobody can sign in and no token is refreshed",
            remedy="ask whoever runs the provider to renew it",
        )
        return Answer(status=Status.WARN, trouble=trouble, measurements=measurements)
