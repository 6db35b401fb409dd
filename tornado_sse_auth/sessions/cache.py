"""Sessions by credential, for a few seconds. Knows what was invalidated or ended lately. Pure but for the clock."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

from cachetools import TTLCache

from ..clock import Clock
from ..errors import InvalidTokenError
from ..identity import Credential, Grant, Session, UserContext

__all__ = ["Authenticated", "Cached", "SessionCache"]

KEEP_ENDED = 10.0
AGING = 0.6  # of the time to live: who comes back within the rest of it finds that it was read again


@dataclass(frozen=True, slots=True)
class Authenticated:
    """A request's session, the credential that opened it, and what follows from both: `user`, `ends_at`, seconds
    since the epoch, and `grant`, where the credential is the access token of one."""

    session: Session
    credential: Credential
    user: UserContext = field(init=False)
    ends_at: float = field(init=False)
    grant: Grant | None = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "user", self.session.user_context(self.credential.scopes))
        object.__setattr__(self, "grant", self.session.grant(self.credential.grant))
        object.__setattr__(self, "ends_at", min(self.session.ends_at, self.credential.expires_at))

    def check_audience(self, resource: str | None) -> None:
        """A token for another resource than this URI is none (RFC 8707, section 2); None: no resource's token is good.
        Raises `InvalidTokenError`."""
        audience = self.credential.audience
        if (self.grant is not None or audience) and resource not in audience:
            raise InvalidTokenError(reason=f"the token is for {', '.join(audience)}")


class Cached(NamedTuple):
    """An entry: the read of it began at the epoch `begun`; from `aging_at` on, on the clock that never goes back, it
    should be read again."""

    found: Authenticated
    begun: int
    aging_at: float


class _Overtaken(NamedTuple):
    """What was read of a session before `epoch` counts only from `version` on."""

    epoch: int
    version: float


class SessionCache:
    """A bounded cache that never answers with what an invalidation has overtaken.

    Every entry carries the count of invalidations at the time its read began; an entry older than the last
    invalidation of its session is worth nothing, unless it is of the version that the invalidation told of. So an
    invalidation need not know which credentials are cached, and a fill whose read began before it is dropped on its
    first use.
    """

    def __init__(self, *, size: int, ttl: float, clock: Clock) -> None:
        self._clock = clock
        self._entries: TTLCache[bytes, Cached] | None = (
            TTLCache(maxsize=size, ttl=ttl, timer=clock.monotonic) if ttl > 0 else None
        )
        self._aging = AGING * ttl
        self._keep = max(KEEP_ENDED, ttl)
        self._epoch = 0
        self._cleared = 0
        self._forgotten = 0
        self._invalidated: dict[str, _Overtaken] = {}
        self._ended: dict[str, int] = {}
        self._recent: deque[tuple[float, int, str]] = deque()

    def __len__(self) -> int:
        return len(self._entries) if self._entries is not None else 0

    def get(self, digest: bytes) -> Cached | None:
        """What this credential opens, if it is cached and nothing has overtaken it."""
        if self._entries is None:
            return None
        try:
            entry = self._entries[digest]
        except KeyError:
            return None
        if self._invalidated and self._is_overtaken(entry.found.session, entry.begun):
            self._entries.pop(digest, None)
            return None
        return entry

    def forget(self, digest: bytes) -> None:
        """What this credential opens is read when it is asked for next."""
        if self._entries is not None:
            self._entries.pop(digest, None)

    def _is_overtaken(self, session: Session, begun: int) -> bool:
        overtaken = self._invalidated.get(session.id)
        return overtaken is not None and overtaken.epoch > begun and session.version < overtaken.version

    def is_newest(self, session: Session, begun: int) -> bool:
        """Whether nothing has overtaken since `begun` (see `begin_fill`) what was known of the session then. False also
        where that is so long ago that nobody remembers."""
        return begun >= max(self._cleared, self._forgotten) and not self._is_overtaken(session, begun)

    def begin_fill(self) -> int:
        """Call before the store is read; hand the number to `fill`."""
        return self._epoch

    def fill(self, digest: bytes, found: Authenticated, begun: int) -> bool:
        """Keep what was read. False when the session was invalidated since the read began: read again."""
        if self._cleared > begun or self._is_overtaken(found.session, begun):
            return False
        if self._entries is not None:
            self._entries[digest] = Cached(found, begun, self._clock.monotonic() + self._aging)
        return True

    def invalidate(self, session_id: str, version: float = math.inf) -> None:
        """Nothing read of this session until now counts any more, but for what is of `version` or newer."""
        self._epoch += 1
        before = self._invalidated.get(session_id)
        version = version if before is None else max(version, before.version)
        self._invalidated[session_id] = _Overtaken(self._epoch, version)
        self._recent.append((self._clock.monotonic(), self._epoch, session_id))
        self._forget_old()

    def end(self, session_id: str) -> None:
        """The session is over; for 10 s `is_ended` says so."""
        self.invalidate(session_id)
        self._ended[session_id] = self._epoch

    def is_ended(self, session_id: str) -> bool:
        """True when the session ended lately."""
        return session_id in self._ended

    def clear(self) -> None:
        """Drop every entry, and what is being read right now."""
        self._epoch += 1
        self._cleared = self._epoch
        if self._entries is not None:
            self._entries.clear()

    def _forget_old(self) -> None:
        limit = self._clock.monotonic() - self._keep
        while self._recent and self._recent[0][0] < limit:
            _, epoch, session_id = self._recent.popleft()
            self._forgotten = epoch
            if session_id in self._invalidated and self._invalidated[session_id].epoch == epoch:
                del self._invalidated[session_id]
            if self._ended.get(session_id) == epoch:
                del self._ended[session_id]
