"""Every warn and fail of every check says in one sentence what, since when, whom it hurts, what to do."""

from __future__ import annotations

import re
import resource
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from tornado_sse_auth.errors import ConfigurationError, ProviderUnavailableError, StoreUnavailableError
from tornado_sse_auth.health import Check, Health, Status, checks
from tornado_sse_auth.health.process import DescriptorsCheck, LoopCheck, RefreshCheck, StreamsCheck, TargetsCheck
from tornado_sse_auth.health.provider import (
    CertificateCheck,
    ClientCheck,
    ProviderCheck,
    ProviderKeysCheck,
    TokenEndpointCheck,
)
from tornado_sse_auth.health.sealing import SealingCheck
from tornado_sse_auth.health.store import ChangeFeedCheck, LookupCheck, ReplicaSetCheck, StoreCheck
from tornado_sse_auth.metrics import TARGETS, NullMetrics
from tornado_sse_auth.mongodb import ReplicaSetView
from tornado_sse_auth.oauth import Certificate
from tornado_sse_auth.observations import Observations
from tornado_sse_auth.stores.base import SealingKeys
from tornado_sse_auth.testing import ManualClock, RecordingMetrics

SENTENCE = re.compile(r"Since 2023-11-14 22:13:20 UTC (?P<what>[^:;()]+)( \([^()]+\))?: (?P<hurts>[^:;]+); .+[^.]\.")
NOBODYS_BUSINESS = re.compile(r"://|\d+\.\d+\.\d+\.\d+|hunter2|Traceback|0x[0-9a-f]{6}")
CLOCK = ManualClock()
SECRET = "mongodb://user:hunter2@10.1.2.3/ answered https://provider.example/token?code=hunter2"


def answers(value: Any = None, **attributes: Any) -> Any:
    """A part whose methods give `value`, or raise it; with these attributes."""

    class Part(SimpleNamespace):
        def __getattr__(self, name: str) -> Any:
            async def method(*_: Any) -> Any:
                if isinstance(value, Exception):
                    raise value
                return value

            return method

    return Part(**attributes)


def seen(**timings: float) -> Observations:
    """Twenty timings of each of these."""
    observations = Observations(NullMetrics(), clock=CLOCK)
    for name, seconds in timings.items():
        for _ in range(20):
            observations.timing(name.replace("_", "."), seconds)
    return observations


def refused() -> ProviderUnavailableError:
    """Another issuer's metadata."""
    error = ProviderUnavailableError(reason=SECRET)
    error.__cause__ = ConfigurationError(SECRET)
    return error


def troubled() -> Iterator[Check]:
    """Each check in each of its troubles."""
    broken = RuntimeError(SECRET)
    silent, unavailable = StoreUnavailableError(reason="AutoReconnect"), ProviderUnavailableError(reason="ConnectError")
    nothing = seen()
    for error in (broken, silent):
        yield StoreCheck(answers(error), nothing, CLOCK)
        yield LookupCheck(answers(error), nothing)
        yield ReplicaSetCheck(answers(error))
        yield SealingCheck(answers(error), CLOCK)
    good = {"members": 3, "primary": True, "majority_lag": 0.0, "healthy": 3}
    for bad in (
        {"primary": False},
        {"healthy": 2},
        {"majority_lag": 30.0},
        {"slowest_lag": 40.0},
        {"connections": 96, "connections_left": 4},
    ):
        yield ReplicaSetCheck(answers(ReplicaSetView(**{**good, **bad})))
    yield ChangeFeedCheck(answers(feed_alive=False), answers(feed_alive=True))
    yield ChangeFeedCheck(answers(feed_alive=True, feed_delay=3.0), answers(feed_alive=True, feed_delay=None))
    yield SealingCheck(answers(SealingKeys(ring=("aa",), values={"bb": 2})), CLOCK)
    for error in (broken, unavailable):
        yield ProviderCheck(answers(error), nothing)
        yield ProviderKeysCheck(answers(error))
        yield TokenEndpointCheck(answers(error), lambda: 0.0)
    yield ProviderCheck(answers(refused()), nothing)
    yield TokenEndpointCheck(answers(), lambda: 12.0)
    yield ClientCheck(answers(client_alarm="the token endpoint answered invalid_client"))
    yield CertificateCheck(answers(certificate=Certificate(CLOCK.time() - 9e6, CLOCK.time() + 86_400)), CLOCK)
    yield LoopCheck(SimpleNamespace(worst=lambda _: 2.0, percentile=lambda _: 0.01))  # type: ignore[arg-type]

    class Registry(SimpleNamespace):
        def __len__(self) -> int:
            return 95

    yield StreamsCheck(Registry(limit=100, active_sessions=90))  # type: ignore[arg-type]
    late = {"scheduled": 5, "lag": 0.0}
    for failing, longest, overdue in (({"transient": 2}, 40.0, 0.0), ({}, 0.0, 50.0)):
        manager: Any = SimpleNamespace(**late, failing=failing, longest_failing=longest, overdue=overdue)
        yield RefreshCheck(manager, nothing)
    yield TargetsCheck(seen(session_validate=0.2, token_refresh=0.2, store_lookup=0.2, provider_check=0.3))
    yield DescriptorsCheck()


async def test_each_trouble_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """REL-25: in a pattern that has a place for each of the four, and without what is nobody's business."""
    limits = (16, 16)
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits)  # few are open at any time
    said: dict[str, set[str]] = {}
    for check in troubled():
        health = Health([check], metrics=RecordingMetrics(), clock=CLOCK)
        (finding,) = (await health.report()).findings
        await health.close()
        assert finding.status is not Status.PASS, check.name
        assert finding.output is not None, check.name
        assert SENTENCE.fullmatch(finding.output), finding.output
        assert not NOBODYS_BUSINESS.search(finding.output), finding.output
        said.setdefault(check.name, set()).add(str(finding.trouble and finding.trouble.what))
    known = [kind for kind in vars(checks).values() if isinstance(kind, type) and issubclass(kind, Check)]
    assert said.keys() == {kind.name for kind in known if kind is not Check}
    assert len(said["replica_set"]) == 5
    (targets,) = said["targets"]
    assert all(name in targets for name in TARGETS)
