"""Who is open, by session and user, and what becomes of them when their session changes or ends."""

from __future__ import annotations

import asyncio
import math
import random
import resource
import sys
from collections import Counter
from collections.abc import Callable, Iterable

from ..clock import Clock
from ..deadlines import Deadlines
from ..errors import (
    ConfigurationError,
    ForbiddenError,
    InvalidTokenError,
    OverloadedError,
    ReauthorizationRequiredError,
    TooManyStreamsError,
)
from ..identity import CredentialKind, Session, SessionState, UserContext
from ..metrics import Metrics
from ..options import Options
from ..periodic import MonotonicPeriodicCallback
from .reasons import CloseReason
from .session_streams import SessionStreams
from .stream import EventStream
from .wheel import HeartbeatWheel

__all__ = ["StreamRegistry"]

TICK = 0.25
ABORT_AFTER = 0.5  # seconds in which a client that was told to go must have read what is queued
LINGER = 30.0  # the same where the handler itself was done
MIN_RETRY = 1.0
RETRIES_A_SECOND = 400.0  # how fast a process takes streams back, conservatively
DRAIN_STEP = 0.05


class StreamRegistry:
    """Owner of the heartbeat wheel and of every deadline; one tick serves all streams, in proportion to what is due.

    `authorization_url(session)` is where its user signs in again. `is_ended(session_id)`: whether the session ended a
    moment ago, for streams whose session was read before. `on_first(session)` and `on_last(session_id)` are told of a
    stored session's first and last stream in this process; news of it come from then on, so that
    `look_again(session, known_at)` sees to those that came before.
    """

    def __init__(
        self,
        options: Options,
        metrics: Metrics,
        clock: Clock,
        *,
        authorization_url: Callable[[Session], str | None],
        is_ended: Callable[[str], bool],
        on_first: Callable[[Session], None],
        on_last: Callable[[str], None],
        look_again: Callable[[Session, int], None],
    ) -> None:
        self.max_buffer = options.max_stream_buffer
        self.grace = options.reauthorization_grace
        self.now = clock.monotonic()
        self._options = options
        self._metrics = metrics
        self._clock = clock
        self._authorization_url = authorization_url
        self._is_ended = is_ended
        self._on_first = on_first
        self._on_last = on_last
        self._look_again = look_again
        self._max_streams = options.max_streams or _descriptor_room()
        self._size = 0
        self._groups: dict[str, SessionStreams[EventStream]] = {}
        self._users: Counter[str] = Counter()
        tick = min(TICK, options.heartbeat / 4)
        self._wheel: HeartbeatWheel[EventStream] = HeartbeatWheel(options.heartbeat, tick)
        self._graces: Deadlines[str] = Deadlines()  # monotonic
        self._expiries: Deadlines[str] = Deadlines()  # wall clock: it may jump, and sessions with it
        self._leaving: Deadlines[EventStream] = Deadlines()  # monotonic
        self._ticker = MonotonicPeriodicCallback(self.tick, tick * 1000)
        self._draining = False

    # -- life ------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to tick."""
        self._draining = False
        self._ticker.start()

    async def close(self) -> None:
        """End every stream at once. Twice is once."""
        await self.drain(0.0)
        self._ticker.stop()

    async def drain(self, timeout: float) -> None:
        """Refuse new streams; tell the open ones to return later, each at its own time, spread over half of `timeout`
        seconds; reset those whose clients have not read it at the end."""
        self._draining = True
        steps = max(1, round(timeout / 2 / DRAIN_STEP))
        for step in range(steps, 0, -1):
            open_streams = [stream for group in self._groups.values() for stream in group.streams]
            for stream in open_streams[: math.ceil(len(open_streams) / step)]:
                stream.end(CloseReason.SERVER_SHUTDOWN, retry=self.retry())
            if self._size:
                await asyncio.sleep(DRAIN_STEP)
        for _ in range(round(timeout / 2 / DRAIN_STEP)):
            if not self._leaving:
                break
            await asyncio.sleep(DRAIN_STEP)
        self._abort(self._leaving.due(math.inf))
        # What was cancelled or reset leaves its handlers within a few turns of the loop.
        for _ in range(3):
            await asyncio.sleep(0)

    def tick(self) -> None:
        """Do what is due: heartbeats, graces, expiries, resets. The owner of the loop calls it, tests may."""
        self.now = now = self._clock.monotonic()
        for session_id in self._graces.due(now):
            self.session_ended(session_id, CloseReason.REAUTHORIZATION)
        for session_id in self._expiries.due(self._clock.time()):
            self.session_ended(session_id, CloseReason.SESSION_EXPIRED)
        self._abort(self._leaving.due(now))
        for stream in self._wheel.turn(now):
            stream.beat()

    # -- who is open -----------------------------------------------------------------------------------------------

    @property
    def limit(self) -> int:
        """How many streams may be open in this process."""
        return self._max_streams

    def __len__(self) -> int:
        return self._size

    @property
    def active_sessions(self) -> int:
        """Sessions with an open stream."""
        return len(self._groups)

    @property
    def leaving(self) -> int:
        """Streams that have ended and whose response has not left yet."""
        return len(self._leaving)

    def count(self, session_id: str) -> int:
        """Open streams of the session."""
        group = self._groups.get(session_id)
        return len(group.streams) if group is not None else 0

    def version(self, session_id: str) -> int | None:
        """The newest version known of a session with open streams; None where it has none."""
        group = self._groups.get(session_id)
        return group.session.version if group is not None else None

    def session_ids(self) -> Iterable[str]:
        """Every stored session with an open stream."""
        return [session_id for session_id, group in self._groups.items() if group.session.stored]

    def admit(self, user: UserContext) -> None:
        """Raise what would refuse a new stream of `user`: `TooManyStreamsError`, `OverloadedError`."""
        if self._draining:
            raise OverloadedError(reason="the process is shutting down", retry_after=self.retry())
        if self._size >= self._max_streams:
            raise OverloadedError(reason=f"{self._size} streams are open", retry_after=self.retry())
        if self._users[user.user_id] >= self._options.max_streams_per_user:
            raise TooManyStreamsError(reason=f"{user.user_id} has {self._users[user.user_id]} streams")

    def add(self, stream: EventStream, session: Session) -> SessionStreams[EventStream]:
        """Register a stream before its first byte. Raises what `admit` raises, and `InvalidTokenError`,
        `ForbiddenError`, `ReauthorizationRequiredError` where the session changed since the request was authenticated.
        """
        if self._is_ended(session.id):
            raise InvalidTokenError(reason="the session has just ended")
        self.session_changed(session)
        group = self._groups.get(session.id) or SessionStreams(session)
        if self._lost_credential(stream, group.session):
            raise InvalidTokenError(reason="the credential has just been revoked")
        if group.session.ends_at <= self._clock.time():
            raise InvalidTokenError(reason="the session has expired")
        if group.session.state is SessionState.REAUTHORIZATION:
            raise ReauthorizationRequiredError(
                authorization_url=self._authorization_url(group.session), reason=group.session.reauth_reason
            )
        stream.requirements.check(group.user_of(stream), self._options.subscription_levels)
        self.admit(group.user)
        if not group.streams:
            self._groups[session.id] = group
            self._expiries.set(session.id, group.session.ends_at)
            if group.session.stored:
                self._on_first(group.session)
                self._look_again(group.session, stream.known_at)
        group.streams[stream] = None
        self._users[group.user.user_id] += 1
        self._size += 1
        self._wheel.add(stream)
        stream.opened_at = self._clock.monotonic()
        self._metrics.increment("stream.opened")
        return group

    def remove(self, stream: EventStream, group: SessionStreams[EventStream]) -> None:
        """Forget a stream that has just ended; it is watched until its response has left."""
        group.streams.pop(stream, None)
        self._size -= 1
        self._wheel.discard(stream)
        user_id = group.user.user_id
        self._users[user_id] -= 1
        if not self._users[user_id]:
            del self._users[user_id]
        now = self._clock.monotonic()
        done = stream.ended in (CloseReason.COMPLETED, CloseReason.ERROR)
        self._leaving.set(stream, now + (LINGER if done else ABORT_AFTER))
        self._metrics.increment(f"stream.closed.{stream.ended}")
        self._metrics.timing("stream.lifetime", now - stream.opened_at)
        if not group.streams:
            session_id = group.session.id
            del self._groups[session_id]
            self._graces.discard(session_id)
            self._expiries.discard(session_id)
            if group.session.stored:
                self._on_last(session_id)
        group.tell()

    def release(self, stream: EventStream) -> None:
        """The response of a stream that has ended is out, or its connection closed."""
        self._leaving.discard(stream)

    def retry(self) -> float:
        """Seconds after which a client should return: random, over the time that all of them together would take."""
        return random.uniform(MIN_RETRY, 2 * MIN_RETRY + self._size / RETRIES_A_SECOND)  # noqa: S311 - no secret

    # -- what becomes of sessions ----------------------------------------------------------------------------------

    def session_changed(self, session: Session) -> None:
        """Take over the session's newest version: end the streams that it no longer carries, tell the others when it
        needs its user, and when no longer. An older version than the one known is ignored."""
        group = self._groups.get(session.id)
        if group is None or session.version < group.session.version:
            return
        before = group.session.state
        restored = before is SessionState.REAUTHORIZATION and session.state is SessionState.ACTIVE
        group.update(session)
        self._expiries.set(session.id, session.ends_at)
        for stream in tuple(group.streams):
            if restored:
                _carry_over(stream, session)
            reason = self._objection(stream, group)
            if reason is not None:
                stream.end(reason)
        if restored:
            self._graces.discard(session.id)
            self._notify(group, "auth_restored", {"session_id": session.id, "expires_at": int(session.expires_at)})
        elif session.state is SessionState.REAUTHORIZATION and before is SessionState.ACTIVE and group.streams:
            self._graces.set(session.id, self._clock.monotonic() + self.grace)
            url = self._authorization_url(session)
            self._notify(group, "auth_required", {"authorization_url": url, "reason": session.reauth_reason})

    def session_ended(self, session_id: str, reason: str) -> None:
        """End the session's streams with `reason`, a close reason."""
        group = self._groups.get(session_id)
        if group is not None:
            for stream in tuple(group.streams):
                stream.end(reason)

    def _objection(self, stream: EventStream, group: SessionStreams[EventStream]) -> str | None:
        if self._lost_credential(stream, group.session):
            return CloseReason.REVOKED
        try:
            stream.requirements.check(group.user_of(stream), self._options.subscription_levels)
        except ForbiddenError as error:
            return error.code
        except ConfigurationError:
            return CloseReason.ERROR
        return None

    def _lost_credential(self, stream: EventStream, session: Session) -> bool:
        """True when the stream's credential was taken out of the session, or what it stands on was: its grant, or the
        cookie it was made with. That a credential merely expired, and was then forgotten, does not count."""
        if stream.grant is not None:
            return session.grant(stream.grant) is None
        if stream.credential is None or session.credential(stream.credential) is not None:
            return False
        if stream.credential_expires_at > self._clock.time():
            return True
        return stream.parent is not None and session.credential(stream.parent) is None

    def _notify(self, group: SessionStreams[EventStream], event: str, data: dict[str, object]) -> None:
        for stream in tuple(group.streams):
            stream.notify(event, data)

    def _abort(self, streams: Iterable[EventStream]) -> None:
        for stream in streams:
            stream.abort()


def _carry_over(stream: EventStream, session: Session) -> None:
    """Signing in again replaces the browser's cookie. What was opened with it, or with a bearer made from it, goes on,
    and stands on the new one."""
    cookies = [credential for credential in session.credentials if credential.kind is CredentialKind.COOKIE]
    if not cookies or stream.credential is None or stream.grant is not None:
        return
    newest = cookies[-1]
    known = session.credential(stream.credential)
    if known is not None:
        stream.parent = known.parent
    elif stream.parent is None:
        stream.credential, stream.credential_expires_at = newest.digest, newest.expires_at
    elif session.credential(stream.parent) is None:
        stream.parent = newest.digest


def _descriptor_room() -> int:
    """Three quarters of the descriptors: store, provider and the refusal of one connection too many need some."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft * 3 // 4
