"""`SSEAuthMixin`: authentication in `prepare()`, streams, and the upstream access token. The parts do the work."""

from __future__ import annotations

from collections.abc import Awaitable, Collection, Generator, Iterable
from typing import Any, ClassVar, TypeVar, cast

from ..errors import (
    AuthenticationRequiredError,
    ConfigurationError,
    ExpiredTokenError,
    InvalidTokenError,
    ReauthorizationRequiredError,
)
from ..identity import CredentialKind, Secret, Session, SessionState
from ..sessions.cache import Authenticated
from ..sessions.credentials import PresentedCredential
from ..sessions.requirements import NO_REQUIREMENTS, Requirements
from ..streams import EventStream
from .handler import ErrorAnswers

__all__ = ["SSEAuthMixin"]

S = TypeVar("S", bound=EventStream)

# An iterator that exists already costs less than a generator.
_NOTHING = cast("Generator[Any, None, None]", iter(()))


class _Done:
    """An awaitable that is done: `await super().prepare()` works whether or not there was something to wait for."""

    __slots__ = ()

    def __await__(self) -> Generator[Any, None, None]:
        return _NOTHING


_DONE = _Done()


class SSEAuthMixin(ErrorAnswers):
    """Goes before `RequestHandler`. After `prepare()`, `self.current_user` is a `UserContext`.

    Set `required_scopes`, `required_permissions`, `required_subscription` on the class, or call `require()` in a
    method. A handler of a protected resource for MCP clients sets `resource`. An override of `prepare` is a coroutine
    that begins with `await super().prepare()`; one of `on_connection_close` calls `super()`::

        class Prices(SSEAuthMixin, tornado.web.RequestHandler):
            required_scopes = {"prices:read"}

            async def get(self):
                async with self.event_stream() as stream:
                    await stream.follow("prices")
    """

    required_scopes: ClassVar[Collection[str]] = ()
    required_permissions: ClassVar[Collection[str]] = ()
    required_subscription: ClassVar[str | None] = None

    _class_required: ClassVar[tuple[Collection[str], Collection[str], str | None]]
    _class_requirements: ClassVar[Requirements]
    _authenticated: Authenticated | None = None
    _known_at = 0
    _stream: EventStream | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._class_required = cls.required_scopes, cls.required_permissions, cls.required_subscription
        cls._class_requirements = Requirements.of(*cls._class_required)

    def prepare(self) -> Awaitable[None]:
        """Authenticate. Raises `AuthenticationRequiredError` and its kin; they become the answer."""
        self.identify_request()
        self.requirements = self._requirements_now()
        auth = self.sse_auth
        self.redirect_loopback_page()
        auth.guard.check_origin(self.request)
        if self.request.method == "OPTIONS":
            self.answer_preflight()
        presented = auth.presented(self.request)
        if presented is None:
            raise AuthenticationRequiredError(authorization_url=auth.authorization_url())
        self.credential_presented = True
        if presented.kind is CredentialKind.COOKIE:
            auth.guard.check_same_origin(self.request)
        found = auth.sessions.cached(presented)
        if found is not None:
            self._admit(found)
            return _DONE
        return self._ask_store(presented)

    async def _ask_store(self, presented: PresentedCredential) -> None:
        auth = self.sse_auth
        try:
            found = await auth.sessions.read(presented, self._resource_uri)
        except ExpiredTokenError:
            raise
        except InvalidTokenError:
            auth.bad_credentials.hit(self.request_info.remote)
            raise
        self._admit(found)

    def _requirements_now(self) -> Requirements:
        """Those of the class, worked out once, unless somebody has set others since."""
        required = self.required_scopes, self.required_permissions, self.required_subscription
        if required == self._class_required:
            return self._class_requirements
        return Requirements.of(*required)

    def _admit(self, found: Authenticated) -> None:
        if found.grant is not None or found.credential.audience:
            found.check_audience(self._resource_uri)
        self._authenticated = found
        self._known_at = self.sse_auth.sessions.known_at()
        self.check_session_state(found.session)
        self.current_user = found.user
        if self.requirements is not NO_REQUIREMENTS:
            self.requirements.check(found.user, self.sse_auth.options.subscription_levels)

    @property
    def _resource_uri(self) -> str | None:
        return None if self.resource is None else f"{self.sse_auth.options.public_url}{self.resource}"

    def check_session_state(self, session: Session) -> None:
        """Raises `ReauthorizationRequiredError` for a session that needs its user."""
        if session.state is SessionState.REAUTHORIZATION:
            raise ReauthorizationRequiredError(
                authorization_url=self.sse_auth.authorization_url(session), reason=session.reauth_reason
            )

    @property
    def authenticated(self) -> Authenticated:
        """Session and credential of this request. Raises `AuthenticationRequiredError` before `prepare`."""
        if self._authenticated is None:
            raise AuthenticationRequiredError(reason="prepare() has not run; an override must await super().prepare()")
        return self._authenticated

    def require(
        self, *, scopes: Iterable[str] = (), permissions: Iterable[str] = (), subscription: str | None = None
    ) -> None:
        """Ask for more than the class does, in one method. A stream opened afterwards ends when it lacks.

        Raises `InsufficientScopeError`, `InsufficientPermissionError`, `InsufficientSubscriptionError`.
        """
        levels = self.sse_auth.options.subscription_levels
        self.requirements = self.requirements.both(Requirements.of(scopes, permissions, subscription), levels)
        self.requirements.check(self.authenticated.user, levels)

    def event_stream(self) -> EventStream:
        """One SSE response, for `async with`. Raises `TooManyStreamsError` and `OverloadedError` on entering."""
        return self._make_stream(EventStream)

    def _make_stream(self, kind: type[S]) -> S:
        auth = self.sse_auth
        authenticated = self.authenticated
        stream = kind(
            self,
            session=authenticated.session,
            credential=authenticated.credential.digest,
            known_at=self._known_at,
            requirements=self.requirements,
            registry=auth.registry,
            hub=auth.hub,
        )
        self._stream = stream
        return stream

    async def upstream_access_token(self, *, min_ttl: float = 30.0) -> Secret:
        """The access token of the session's user at the provider, good for `min_ttl` seconds more (or half of its
        life, where that is less); refreshed if need be. `.reveal()` it into the `Authorization` header of a call.

        Ask anew for every call and keep no copy: a provider may end a token as soon as the next is issued. In an open
        stream the call waits while the session needs its user, as long as the stream lives. Raises
        `ReauthorizationRequiredError`, `ProviderUnavailableError`, `StoreUnavailableError`, `StreamEnded`.
        """
        auth = self.sse_auth
        if auth.refresher is None:
            raise ConfigurationError("this application has no provider, so there is no upstream access token")
        while True:
            found = self.authenticated
            try:
                session = await auth.refresher.fresh(found.session, min_ttl=min_ttl)
            except ReauthorizationRequiredError as error:
                newest = await auth.sessions.find(found.session.id)
                if newest is None:
                    raise InvalidTokenError(reason="the session has ended") from error
                if newest.state is SessionState.ACTIVE and newest.token_version != found.session.token_version:
                    self._authenticated = Authenticated(newest, found.credential)
                    continue
                if self._stream is None or self._stream.ended is not None or newest.token_set is None:
                    raise ReauthorizationRequiredError(
                        authorization_url=auth.authorization_url(newest), reason=error.reason
                    ) from error
                await self._stream.restored()
                continue
            self._authenticated = Authenticated(session, found.credential)
            assert session.token_set is not None  # noqa: S101 - `fresh` promises it
            return session.token_set.access_token

    def set_session_cookie(self, credential: Secret) -> None:
        """Give the browser the cookie of a session that `auth.sessions.create()` made."""
        self.set_cookie(**self.sse_auth.session_cookie(credential))

    def on_connection_close(self) -> None:
        """The client has gone: its stream ends."""
        super().on_connection_close()
        if self._stream is not None:
            self._stream.end("client")
