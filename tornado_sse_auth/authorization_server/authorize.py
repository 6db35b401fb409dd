"""The authorization endpoint (RFC 6749, section 4.1): a client's request, its user's sign-in, and their decision.

The request is checked and stored first. Its user goes to the provider where that is needed and comes back to it; then
they are asked, each time: a client that was allowed something once is not the one that stands before the door.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlencode, urlsplit

from ..audit import AuditLog
from ..clock import Clock
from ..errors import AccessDeniedError, AuthenticationRequiredError, AuthError, InvalidRequestError
from ..identity import Secret, Session, SessionState
from ..sessions.cache import Authenticated
from ..stores.base import KeptRecords
from .authorization_request import (
    AuthorizationRequest,
    check_redirect,
    csrf_token,
    read_request,
    redirect_location,
    sent_to_sign_in,
)
from .clients import Client, ClientDirectory
from .endpoint import single
from .errors import ConsentRequiredError, InvalidClientError, LoginRequiredError, OAuthError
from .grants import GrantManager
from .pages import Consent
from .pending_requests import PendingRequests
from .redirect_uris import is_loopback, is_private_scheme, redirect_host
from .resources import OFFLINE_ACCESS, Resources

__all__ = ["AuthorizationEndpoint", "Redirect", "SignIn"]

MAX_TRIPS = 5  # to the provider, for one request
LOOPBACK_WARNING = (
    "The answer goes to a program on this computer. Allow it only if you have just started the connection yourself."
)
SCHEME_WARNING = (
    "The answer goes to whichever application on this device has claimed that address. Allow it only if you have just "
    "started the connection yourself."
)


class SignIn(Protocol):
    """Where users sign in; the provider's `OAuthProvider` has what is needed."""

    scopes: frozenset[str]


@dataclass(frozen=True, slots=True)
class Redirect:
    """Where the browser goes next."""

    location: str


class AuthorizationEndpoint:
    """Checks, stores, asks, answers. What it raises becomes a page: nobody is redirected to an address that is not
    known to be the client's.

    `issuer` names this server in every answer (RFC 9207). `provider` is None where the application signs its users in
    by itself.
    """

    def __init__(
        self,
        *,
        issuer: str,
        clients: ClientDirectory,
        grants: GrantManager,
        resources: Resources,
        kept: KeptRecords,
        provider: SignIn | None,
        clock: Clock,
        audit: AuditLog,
    ) -> None:
        self._issuer = issuer
        self._clients = clients
        self._grants = grants
        self._resources = resources
        self._pending = PendingRequests(kept, clock)
        self._provider = provider
        self._clock = clock
        self._audit = audit

    # -- the request -----------------------------------------------------------------------------------------------

    async def begin(
        self, arguments: Mapping[str, Sequence[str]], found: Authenticated | None, browser: Secret
    ) -> Redirect | Consent:
        """A new request. Client, redirect, PKCE, resource and scope are checked in this order. `found` is who is signed
        in by the browser's session cookie, `browser` the value of its cookie for this endpoint.

        Raises `InvalidRequestError` where the client cannot be told.
        """
        query = _query(arguments)
        client, redirect_uri = await self._check_client(query)
        try:
            request = read_request(query, client, redirect_uri, self._resources, browser=browser)
            self._check_silent(request, found)
        except (OAuthError, InvalidRequestError) as error:
            return self._refused(redirect_uri, query.get("state"), error)
        request_id = Secret.random().reveal()
        await self._pending.put(request_id, request)
        await self._clients.used(client, granted=False)
        return await self._proceed(request, request_id, found, browser)

    async def _check_client(self, query: Mapping[str, str]) -> tuple[Client, str]:
        client_id = query.get("client_id")
        if client_id is None:
            raise InvalidRequestError("The application that sent you here did not say which one it is.")
        try:
            client = await self._clients.find(client_id)
        except InvalidClientError as error:
            raise InvalidRequestError("The application that sent you here is unknown.", reason=error.reason) from None
        return client, check_redirect(client, query.get("redirect_uri"))

    def _check_silent(self, request: AuthorizationRequest, found: Authenticated | None) -> None:
        if "none" in request.prompts:
            if found is None or found.session.state is not SessionState.ACTIVE:
                raise LoginRequiredError()
            raise ConsentRequiredError()

    # -- the way to the decision -----------------------------------------------------------------------------------

    async def resume(self, request_id: str, found: Authenticated | None, browser: Secret | None) -> Redirect | Consent:
        """A stored request, when its user comes back from the provider. Raises `InvalidRequestError` for one that is
        unknown, too old, or another browser's."""
        request = await self._pending.find(request_id)
        return await self._proceed(request, request_id, found, self._bound(request, browser))

    async def _proceed(
        self, request: AuthorizationRequest, request_id: str, found: Authenticated | None, browser: Secret
    ) -> Redirect | Consent:
        session = found.session if found is not None else None
        if found is None or session is None or session.state is not SessionState.ACTIVE:
            return await self._send_to_sign_in(request, request_id, session)
        asked = bool(request.prompts & {"login", "select_account"})
        if asked and (not request.trips or found.credential.created_at < request.sent_at):
            # Whoever came back without having signed in again has not done what the client asked for.
            return await self._send_to_sign_in(request, request_id, session)
        missing = self._resources.missing(request.scopes, session.scopes)
        if missing and self._may_step_up(request, missing):
            return await self._send_to_sign_in(request, request_id, session, missing=missing)
        scopes = self._resources.grantable(request.scopes, session.scopes)
        if request.scopes and not scopes - {OFFLINE_ACCESS} and request.scopes != {OFFLINE_ACCESS}:
            await self._pending.remove(request_id)
            refusal = AccessDeniedError("The account has none of the scopes that were asked for.")
            return self._refused(request.redirect_uri, request.state, refusal)
        return self._consent(request, request_id, session, scopes, browser)

    def _may_step_up(self, request: AuthorizationRequest, missing: frozenset[str]) -> bool:
        """Whether another way to the provider may bring what is missing. What a sign-in for this very request asked
        for and did not bring, the provider has refused."""
        if self._provider is None or request.stepped_up:
            return False
        return not (request.trips and missing <= self._provider.scopes)

    async def _send_to_sign_in(
        self,
        request: AuthorizationRequest,
        request_id: str,
        session: Session | None,
        *,
        missing: frozenset[str] = frozenset(),
    ) -> Redirect:
        if self._provider is None:
            raise AuthenticationRequiredError("Sign in to this server first.")
        if request.trips >= MAX_TRIPS:
            raise InvalidRequestError("Signing in did not help, several times; start again.")
        again = urlencode({"request": request_id})
        arguments = {"return_to": f"/oauth/authorize?{again}"}
        if request.login_hint is not None:
            arguments["login_hint"] = request.login_hint
        if prompt := request.prompts & {"login", "select_account"}:
            arguments["prompt"] = "login" if "login" in prompt else "select_account"
        if missing:
            arguments["scope"] = " ".join(sorted(self._provider.scopes | missing))
        if session is not None and session.reauth is not None:
            arguments["reauth"] = session.reauth.reveal()
        sent = sent_to_sign_in(request, now=self._clock.time(), stepped_up=bool(missing))
        await self._pending.put(request_id, sent)
        return Redirect(f"/auth/login?{urlencode(arguments)}")

    def _consent(
        self,
        request: AuthorizationRequest,
        request_id: str,
        session: Session,
        scopes: frozenset[str],
        browser: Secret,
    ) -> Consent:
        warning = None
        if is_private_scheme(request.redirect_uri):
            warning = SCHEME_WARNING
        elif is_loopback(request.redirect_uri):
            warning = LOOPBACK_WARNING
        published = request.client_id.startswith("https://")
        site = request.client_id if published else request.client_uri
        again = {"prompt": "select_account", "return_to": f"/oauth/authorize?{urlencode({'request': request_id})}"}
        return Consent(
            client_name=request.client_name or "An application without a name",
            client_host=urlsplit(site).netloc if site is not None else None,
            client_host_proven=published or self._clients.vouches_for(request.client_id),
            redirect_host=redirect_host(request.redirect_uri),
            redirect_warning=warning,
            account=account_name(session),
            resources=request.audience,
            scopes=tuple(self._resources.scopes[scope] for scope in sorted(scopes - {OFFLINE_ACCESS})),
            request_id=request_id,
            csrf=csrf_token(browser, request_id, session.id, scopes),
            other_account=f"/auth/login?{urlencode(again)}",
        )

    # -- the decision ----------------------------------------------------------------------------------------------

    async def decide(
        self, form: Mapping[str, Sequence[str]], found: Authenticated | None, browser: Secret | None
    ) -> Redirect:
        """The user's answer. A request is decided once. Raises `InvalidRequestError` for one that is unknown, too old,
        another browser's, or was shown to another account."""
        fields = single(form)
        request_id = fields.get("request", "")
        request = await self._pending.find(request_id)
        bound = self._bound(request, browser)
        session = found.session if found is not None else None
        if session is None or session.state is not SessionState.ACTIVE:
            return Redirect(f"/oauth/authorize?{urlencode({'request': request_id})}")
        scopes = self._resources.grantable(request.scopes, session.scopes)
        if Secret(fields.get("csrf", "")) != Secret(csrf_token(bound, request_id, session.id, scopes)):
            raise InvalidRequestError("The account has changed since the page was shown; go back and start again.")
        decision = fields.get("decision")
        if decision not in ("allow", "deny"):
            raise InvalidRequestError("The decision is allow or deny.")
        if not await self._pending.remove(request_id):
            raise InvalidRequestError("This request was decided already.")
        if decision == "deny":
            self._audit.write(
                "denial",
                outcome="access_denied",
                user_id=session.user_id,
                session_id=session.id,
                reason=f"client {request.client_id[:200]}",
            )
            return self._refused(request.redirect_uri, request.state, AccessDeniedError("The user said no."))
        code = await self._grants.begin(
            session.id,
            client=request.client,
            redirect_uri=request.redirect_uri,
            audience=request.audience,
            scopes=scopes,
            refused=self._resources.missing(request.scopes, session.scopes),
            challenge=request.challenge,
        )
        return self._answer(request.redirect_uri, {"code": code.reveal(), "state": request.state})

    # -- shared ----------------------------------------------------------------------------------------------------

    def _bound(self, request: AuthorizationRequest, browser: Secret | None) -> Secret:
        if browser is None or browser.digest() != request.browser:
            raise InvalidRequestError(
                "This request was begun in another browser, or the browser does not keep this server's cookies.",
                reason="another browser's request",
            )
        return browser

    def _refused(self, redirect_uri: str, state: str | None, error: AuthError) -> Redirect:
        refusal: dict[str, Any] = {"error": error.code, "error_description": error.public_message, "state": state}
        return self._answer(redirect_uri, refusal)

    def _answer(self, redirect_uri: str, parameters: Mapping[str, str | None]) -> Redirect:
        return Redirect(redirect_location(redirect_uri, {**parameters, "iss": self._issuer}))


def account_name(session: Session) -> str:
    """The account as its user knows it."""
    for claim in ("email", "preferred_username", "name"):
        value = session.claims.get(claim)
        if isinstance(value, str) and value:
            return value[:200]
    return str(session.claims.get("sub") or session.user_id.rpartition("|")[2])[:200]


def _query(arguments: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """The query; a `resource` may be repeated here, which is for the client to be told."""
    resources = arguments.get("resource", ())
    query = single({name: values for name, values in arguments.items() if name != "resource"})
    if resources:
        # A line break is in no URI: two resources are one that nobody has.
        query["resource"] = "\n".join(resources)
    return query
