"""What a session store promises. Every implementation passes the one suite in tests/stores."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from ..identity import RefreshState, Session
from ..metrics import Metrics, NullMetrics
from ..mongodb import ReplicaSetView
from ..sealing import Keyring

__all__ = [
    "ChangeKind",
    "ChangeListener",
    "KeptRecord",
    "KeptRecords",
    "Lease",
    "LeaseRefused",
    "SealingKeys",
    "SessionChange",
    "SessionStore",
    "SingleUseRecords",
    "Trimmed",
    "VersionConflict",
]


class VersionConflict(Exception):  # noqa: N818 - not an error of anybody's: read again and decide anew
    """The stored session is newer than the one a write was based on, or is gone."""


class ChangeKind(StrEnum):
    """CHANGED: a new version is stored. ENDED: the session is gone. LOST: changes were missed, trust nothing cached."""

    CHANGED = "changed"
    ENDED = "ended"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class SessionChange:
    """One line of the change feed; `session_id` is empty for LOST. `version`: the row's after the change, where that is
    known."""

    kind: ChangeKind
    session_id: str = ""
    version: int | None = field(default=None, compare=False)


ChangeListener = Callable[[SessionChange], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """The right to send one refresh of `session`, which is the row as read under the lease.

    `reattempt`: the refresh token may have reached the provider before, without a known outcome.
    """

    session: Session
    fence: int
    reattempt: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseRefused:
    """No lease. `session` is the row as it stands (None: gone); `expired`: by the store's clock no lease is running."""

    session: Session | None
    expired: bool


class SingleUseRecords(ABC):
    """Small records that are taken once: sign-in state, codes. The key is a SHA-256, the value is sealed at rest."""

    @abstractmethod
    async def put(self, kind: str, digest: bytes, value: Mapping[str, Any], expires_at: float) -> None:
        """Store a JSON-able `value` until `expires_at` (epoch seconds)."""

    @abstractmethod
    async def take(self, kind: str, digest: bytes) -> dict[str, Any] | None:
        """Remove and return the value, atomically: of many takers one gets it. None: unknown, taken, expired."""


@dataclass(frozen=True, slots=True)
class KeptRecord:
    """A kept record as stored. `version` rises with every write, `expires_at` is in epoch seconds."""

    value: dict[str, Any]
    version: int
    expires_at: float


@dataclass(frozen=True, slots=True)
class Trimmed:
    """How many records of a kind are `left`, and the keys of those that were `removed` to get there."""

    left: int
    removed: tuple[str, ...] = ()


class KeptRecords(ABC):
    """Small records that are read many times and changed by compare-and-set: registered clients, MCP sessions. What
    has expired is not there. The key is no secret (of a secret its digest is), the value is sealed at rest."""

    @abstractmethod
    async def get(self, kind: str, key: str) -> KeptRecord | None:
        """The record, or None."""

    @abstractmethod
    async def put(self, kind: str, key: str, value: Mapping[str, Any], expires_at: float) -> None:
        """Store a JSON-able `value` until `expires_at` (epoch seconds), whatever is there."""

    @abstractmethod
    async def replace(self, kind: str, key: str, value: Mapping[str, Any], expires_at: float, *, version: int) -> bool:
        """Store it on condition that the version there is `version`; with 0, that `get` finds nothing there, be it
        because no key opens what is. False when not."""

    @abstractmethod
    async def delete(self, kind: str, key: str) -> bool:
        """Remove the record. False when there was none."""

    @abstractmethod
    async def trim(self, kind: str, *, keep: int, expiring_before: float) -> Trimmed:
        """Where there are more than `keep` records of that kind, remove those that expire soonest, and none that
        expires at `expiring_before` or later."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SealingKeys:
    """Which encryption keys the stored values need. Keys go by their ids in hex; `ring` is this process's keyring in
    its order, empty where nothing is sealed; `values` counts the sealed values under each key."""

    ring: tuple[str, ...]
    values: Mapping[str, int]

    @property
    def outdated(self) -> int:
        """Values that open, and would be sealed with the first key if they were written now."""
        return sum(self.values.get(key, 0) for key in self.ring[1:])

    @property
    def lost(self) -> int:
        """Values that no key of the ring opens: their users must sign in again."""
        return sum(count for key, count in self.values.items() if key not in self.ring)

    @property
    def dispensable(self) -> tuple[str, ...]:
        """Keys of the ring, without the first, that no value needs any more."""
        return tuple(key for key in self.ring[1:] if not self.values.get(key))


class SessionStore(ABC):
    """Sessions, their credentials and token sets, the leases for refreshing them, and a feed of changes.

    Every method may raise `StoreUnavailableError`, within a second of being called. Nothing that a method returned
    changes later. The caller closes what it gave to a store (a database client); `close` ends what the store began.
    """

    records: SingleUseRecords
    kept: KeptRecords
    keyring: Keyring
    """For what another part hands out and must open again, in whichever process shares this store."""
    metrics: Metrics = NullMetrics()
    """Where sessions that cannot be read are counted; the middleware puts its own here."""

    @abstractmethod
    async def start(self) -> None:
        """Make indexes, begin the change feed. Raises `ConfigurationError` where the server cannot serve."""

    @abstractmethod
    async def close(self) -> None:
        """End the change feed. Twice is once."""

    @property
    @abstractmethod
    def feed_alive(self) -> bool:
        """Whether changes made by other processes are arriving; while False, trust nothing cached for long."""

    @property
    def feed_delay(self) -> float | None:
        """Seconds that the newest change took to arrive here; None where none came yet or there is nothing to tell."""
        return None

    @abstractmethod
    async def ping(self) -> None:
        """Return when a majority of the store's servers has acknowledged a write."""

    async def view_replica_set(self) -> ReplicaSetView | None:
        """What the store runs on, for health; None where it is no replica set."""
        return None

    @abstractmethod
    async def sealing_keys(self) -> SealingKeys:
        """Count the sealed values under each key. Takes up to ten seconds where there are millions: ask for it each
        few minutes, beside the requests. An old key may be dropped everywhere once it is in `dispensable` and every
        process seals with the new one."""

    @abstractmethod
    async def insert(self, session: Session) -> None:
        """Store a new session with its credentials. Raises `VersionConflict` where the id or a credential is taken."""

    @abstractmethod
    async def find(self, session_id: str) -> Session | None:
        """The session, or None when there is none or it has ended (expired counts as ended before it is removed)."""

    @abstractmethod
    async def find_by_credential(self, digest: bytes) -> Session | None:
        """The session one of whose credentials has this SHA-256; one indexed read. Whether that one has expired is
        for the caller to see."""

    @abstractmethod
    async def find_by_reauth(self, digest: bytes) -> Session | None:
        """The session in need of its user whose `reauth` value has this SHA-256."""

    @abstractmethod
    async def find_by_user(self, user_id: str) -> list[Session]:
        """The user's sessions, oldest first; one that cannot be read is logged and left out."""

    @abstractmethod
    async def find_by_sid(self, sid: str) -> list[Session]:
        """The sessions begun in this session of the provider's, oldest first; unreadable ones are left out."""

    @abstractmethod
    async def find_by_subject(self, issuer: str, subject: str) -> list[Session]:
        """The sessions of whoever the provider calls `subject`, oldest first; unreadable ones are left out."""

    @abstractmethod
    def find_by_client(self, client_id: str) -> AsyncIterator[Session]:
        """The sessions that have a grant of this client, in no order, read a few at a time: they may be changed or
        ended on the way. One that cannot be read is counted, logged and passed over."""

    @abstractmethod
    async def update(self, session: Session) -> Session:
        """Write everything but `refresh`, `last_seen` and `idle_expires_at`, on condition that the stored version is
        `session.version`. Returns the new row, with the next version. Raises `VersionConflict`.

        A changed `token_version` also clears the lease and the intent: they spoke of the old token."""

    @abstractmethod
    async def touch(self, session_id: str, last_seen: float, idle_expires_at: float) -> None:
        """Move both forward, never back. Not a new version; the feed stays silent."""

    @abstractmethod
    async def delete(self, session_id: str) -> bool:
        """End the session with all its credentials. False when there was none."""

    @abstractmethod
    async def delete_by_user(self, user_id: str) -> list[str]:
        """End all of the user's sessions; their ids."""

    @abstractmethod
    async def take_lease(
        self,
        session_id: str,
        *,
        owner: str,
        token_version: int,
        intent: bytes,
        duration: float,
        seen: int | None = None,
    ) -> Lease | LeaseRefused:
        """Take the right to spend a refresh token and write down the intent, in one step, judged by the store's clock.

        Granted when the row is ACTIVE, its token version is `token_version`, no lease is running and

        - no presentation of unknown outcome stands on the row (`presented` 0), or
        - one does (`presented` 1), and its holder gave the lease back (`owner` None), or
        - one does, its holder never came back, and `seen` equals the row's `fence`: the caller watched that expired
          lease for another lease length. Both latter cases are a `reattempt`.

        The row then has `owner`, `until` = now + `duration`, `fence` + 1, `intent`, `presented` + 1.
        """

    @abstractmethod
    async def renew_lease(self, session_id: str, fence: int, duration: float) -> bool:
        """Extend the lease with this fence to now + `duration`. False when the row's fence is another or the lease was
        given back."""

    @abstractmethod
    async def release_lease(self, session_id: str, fence: int, state: RefreshState) -> None:
        """Give the lease with this fence back and write `intent`, `presented`, `not_before` and `failures` of `state`
        (`owner` None, `until` 0). Nothing happens when the row's fence is another or the lease was given back."""

    @abstractmethod
    async def save_refresh(
        self, session: Session, *, spent_version: int, lost_scopes: frozenset[str] = frozenset()
    ) -> Session | None:
        """Write the result of a refresh, however late: on condition that the row is ACTIVE and its token version is
        still `spent_version`, store `session.token_set`, token version + 1, an empty `RefreshState` (same fence) and a
        new version, and take `lost_scopes` from the row's scopes in the same step. Returns the new row, or None when
        something newer stands there. Writing the same result twice (the first acknowledgement was lost) returns the
        row as it stands with that token set."""

    @abstractmethod
    async def require_reauthorization(self, session: Session, *, spent_version: int) -> Session | None:
        """On the same condition as `save_refresh` set the state to REAUTHORIZATION with `session.reauth` and
        `session.reauth_reason`, and clear lease and intent. Returns the new row, or None when something newer
        stands there. Writing the same twice returns the row as it stands with that `reauth`."""

    @abstractmethod
    def subscribe(self, listener: ChangeListener) -> Callable[[], None]:
        """Call `listener`, on the loop, for every change of any process (at least once each, in the row's order).
        Returns what ends the subscription. A listener that raises is logged and disturbs nobody."""
