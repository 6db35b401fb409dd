"""A sign-in under way: made, stored for one use, and checked when the browser comes back. Pure."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from authlib.oauth2.rfc7636 import create_s256_code_challenge

from ..errors import AccessDeniedError, InvalidRequestError, ProviderUnavailableError
from ..identity import Secret

__all__ = ["SIGN_IN_TTL", "Callback", "SignInAttempt", "SignInRequest", "read_scope", "safe_return_to"]

# Seconds a person has to come back from the provider.
SIGN_IN_TTL = 600.0
MAX_RETURN_TO = 2048
# RFC 3986 without what only an authority needs, and without everything that URL parsers repair in their own ways.
LOCAL_REFERENCE = re.compile(
    r"/[A-Za-z0-9\-._~!$&'()*+,;=:@%/]*(?:\?[A-Za-z0-9\-._~!$&'()*+,;=:@%/?]*)?(?:#[\w\-./=&]*)?", re.ASCII
)
SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+(?: [\x21\x23-\x5b\x5d-\x7e]+)*")  # RFC 6749, section 3.3


@dataclass(frozen=True, slots=True, kw_only=True)
class SignInAttempt:
    """One tab's sign-in. `created_at`: epoch seconds. `scopes` is what is asked for.

    `browser` is the SHA-256 of the value in the cookie of the browser that began. `reauth` is the id of the session
    that needs its user, if it is about one.
    """

    state: Secret
    nonce: str
    verifier: Secret
    browser: bytes
    return_to: str
    scopes: frozenset[str]
    created_at: float
    reauth: str | None = None

    @classmethod
    def begin(
        cls, *, browser: Secret, return_to: str, scopes: frozenset[str], now: float, reauth: str | None = None
    ) -> SignInAttempt:
        """A new attempt with random state, nonce and PKCE verifier. `return_to` may be anything; it is made safe."""
        return cls(
            state=Secret.random(),
            nonce=Secret.random().reveal(),
            verifier=Secret.random(),
            browser=browser.digest(),
            return_to=safe_return_to(return_to),
            scopes=scopes,
            created_at=now,
            reauth=reauth,
        )

    @property
    def challenge(self) -> str:
        """The S256 code challenge (RFC 7636, section 4.2)."""
        return str(create_s256_code_challenge(self.verifier.reveal()))

    @property
    def expires_at(self) -> float:
        """Epoch seconds after which the browser comes too late."""
        return self.created_at + SIGN_IN_TTL

    def check_browser(self, browser: Secret | None, *, now: float) -> None:
        """Raises `InvalidRequestError` unless the browser that began comes back in time (RFC 6749, section 10.12)."""
        if now > self.expires_at:
            raise InvalidRequestError("The sign-in took too long; start it again.", reason="the sign-in has expired")
        if browser is None or browser.digest() != self.browser:
            raise InvalidRequestError(
                "The sign-in was begun elsewhere; start it again.", reason="the sign-in belongs to another browser"
            )

    def to_record(self) -> dict[str, Any]:
        """A JSON-able mapping, for a store of single-use records. It holds secrets."""
        return {
            "state": self.state.reveal(),
            "nonce": self.nonce,
            "verifier": self.verifier.reveal(),
            "browser": base64.b64encode(self.browser).decode("ascii"),
            "return_to": self.return_to,
            "scopes": sorted(self.scopes),
            "created_at": self.created_at,
            "reauth": self.reauth,
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> SignInAttempt:
        """What `to_record` made. Raises `KeyError`, `TypeError` or `ValueError` for anything else."""
        return cls(
            state=Secret(record["state"]),
            nonce=record["nonce"],
            verifier=Secret(record["verifier"]),
            browser=base64.b64decode(record["browser"], validate=True),
            return_to=safe_return_to(record["return_to"]),
            scopes=frozenset(record["scopes"]),
            created_at=float(record["created_at"]),
            reauth=record["reauth"],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SignInRequest:
    """What one authorization URL says: the attempt, who may be signing in, and whether that person is to be asked even
    if the provider knows them (`prompt`: "login" or "select_account"; OpenID Connect Core, section 3.1.2.1).

    Raises `InvalidRequestError` for a hint that no account has, and for another prompt.
    """

    attempt: SignInAttempt
    login_hint: str | None = None
    prompt: str | None = None

    def __post_init__(self) -> None:
        if self.login_hint is not None and not (0 < len(self.login_hint) <= 320 and self.login_hint.isprintable()):
            raise InvalidRequestError("login_hint is malformed.")
        if self.prompt not in (None, "login", "select_account"):
            raise InvalidRequestError("prompt is login or select_account.")


def read_scope(text: str) -> frozenset[str]:
    """The scopes of a `scope` parameter (RFC 6749, section 3.3). Raises `InvalidRequestError`."""
    if len(text) > 1000 or not SCOPE.fullmatch(text):
        raise InvalidRequestError("scope is malformed.")
    return frozenset(text.split(" "))


@dataclass(frozen=True, slots=True, kw_only=True)
class Callback:
    """The parameters with which the provider sent the browser back (RFC 6749, section 4.1.2; RFC 9207)."""

    state: Secret
    code: Secret | None
    error: str | None
    issuer: str | None

    @classmethod
    def read(cls, arguments: Mapping[str, Sequence[str]]) -> Callback:
        """From the query's arguments, each with all its values: a repeated one is an attack or a bug, and refused."""
        for name in ("state", "code", "iss", "error"):
            if len(arguments.get(name, ())) > 1:
                raise InvalidRequestError(f"{name} must come once.")
        state, code, error, issuer = (
            next(iter(arguments.get(name, ())), None) for name in ("state", "code", "error", "iss")
        )
        if not state or len(state) > 512:
            raise InvalidRequestError("The answer of the sign-in provider has no state.")
        if bool(code) == bool(error):
            raise InvalidRequestError("The answer of the sign-in provider has neither code nor error.")
        return cls(state=Secret(state), code=Secret(code) if code else None, error=error or None, issuer=issuer)

    def accept(self, *, issuer: str, iss_parameter: bool) -> Secret:
        """The code, if the answer is the expected provider's and a yes. Take the attempt out of the store before.

        `iss_parameter`: the provider advertises that it names itself. Raises `InvalidRequestError`,
        `AccessDeniedError`, `ProviderUnavailableError`.
        """
        if self.issuer != issuer and (self.issuer is not None or iss_parameter):
            # RFC 9207, section 2.4: mix-up. Also before believing an error.
            raise InvalidRequestError(
                "The answer comes from another sign-in provider.",
                reason="iss is wrong" if self.issuer is not None else "iss is missing though advertised",
            )
        if self.error == "access_denied":
            raise AccessDeniedError(reason="the user or the provider declined")
        if self.error in ("server_error", "temporarily_unavailable"):
            raise ProviderUnavailableError(reason=f"the authorization endpoint answered {self.error}")
        if self.code is None:
            raise InvalidRequestError(
                "The sign-in provider refused the request.", reason="the authorization endpoint answered an error"
            )
        return self.code


def safe_return_to(text: str) -> str:
    """`text` if it is a path on this server that every URL parser reads so, else `/`."""
    if len(text) > MAX_RETURN_TO or not LOCAL_REFERENCE.fullmatch(text):
        return "/"
    path = text.partition("#")[0].partition("?")[0]
    # What a proxy or a page decodes once more must still be a plain path: no "//host", no "\", no line break.
    for _ in range(3):
        if "//" in path or "\\" in path or not path.isprintable():
            return "/"
        decoded = unquote(path)
        if decoded == path:
            return text
        path = decoded
    return "/"
