"""Which checks there are."""

from __future__ import annotations

from ..clock import Clock
from ..events import EventLog
from ..oauth import OAuthProvider
from ..observations import Observations
from ..refresh import RefreshManager
from ..sessions.manager import SessionManager
from ..sessions.token_refresh import TokenRefresher
from ..stores import SessionStore
from ..streams import StreamRegistry
from .check import Check
from .loop_lag import LoopLag
from .process import DescriptorsCheck, LoopCheck, RefreshCheck, StreamsCheck, TargetsCheck
from .provider import CertificateCheck, ClientCheck, ProviderCheck, ProviderKeysCheck, TokenEndpointCheck
from .sealing import SealingCheck
from .store import ChangeFeedCheck, LookupCheck, ReplicaSetCheck, StoreCheck

__all__ = ["process_checks", "provider_checks", "store_checks"]


def store_checks(
    store: SessionStore, events: EventLog, sessions: SessionManager, observations: Observations, clock: Clock
) -> list[Check]:
    """Of the store and the event log."""
    return [
        StoreCheck(store, observations, clock),
        LookupCheck(sessions, observations),
        ReplicaSetCheck(store),
        ChangeFeedCheck(store, events),
        SealingCheck(store, clock),
    ]


def provider_checks(
    provider: OAuthProvider, refresher: TokenRefresher, observations: Observations, clock: Clock
) -> list[Check]:
    """Of the provider."""
    checks: list[Check] = [
        ProviderCheck(provider, observations),
        TokenEndpointCheck(provider, lambda: refresher.provider_pause),
        ClientCheck(provider),
        CertificateCheck(provider, clock),
    ]
    if provider.openid:
        checks.insert(1, ProviderKeysCheck(provider))
    return checks


def process_checks(
    registry: StreamRegistry, refresh_manager: RefreshManager, observations: Observations, lag: LoopLag
) -> list[Check]:
    """Of this process."""
    return [
        LoopCheck(lag),
        StreamsCheck(registry),
        RefreshCheck(refresh_manager, observations),
        TargetsCheck(observations),
        DescriptorsCheck(),
    ]
