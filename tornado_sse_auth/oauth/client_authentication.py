"""How we prove to the provider's endpoints which client we are (RFC 6749, section 2.3)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote_plus

from authlib.common.urls import add_params_to_qs
from authlib.oauth2.auth import ClientAuth

from ..errors import ConfigurationError
from ..identity import Secret

__all__ = ["ClientCredentials"]


@dataclass(frozen=True, slots=True)
class ClientCredentials:
    """Our id at the provider, and the secret of a confidential client."""

    client_id: str
    client_secret: Secret | None

    def method(self, offered: frozenset[str] | None) -> str:
        """The method to use of those that the metadata offers (None: it is silent, RFC 8414 says basic then).

        Raises `ConfigurationError` where there is none that we can use.
        """
        if self.client_secret is None:
            # Few providers list "none", and many accept it from public clients.
            return "none"
        for method in ("client_secret_basic", "client_secret_post"):
            if offered is None or method in offered:
                return method
        raise ConfigurationError(
            "the provider accepts neither client_secret_basic nor client_secret_post"
            + ("; leave the client secret away for a public client" if "none" in (offered or ()) else "")
        )

    def form(
        self, url: str, parameters: Mapping[str, str], offered: frozenset[str] | None
    ) -> tuple[dict[str, str], str]:
        """Headers and body of an authenticated POST of `parameters` to `url`."""
        method = self.method(offered)
        client_id, secret = self.client_id, "" if self.client_secret is None else self.client_secret.reveal()
        if method == "client_secret_basic":
            # RFC 6749, section 2.3.1, wants both form-encoded first; Authlib joins them as they are.
            client_id, secret = quote_plus(client_id), quote_plus(secret)
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        _, headers, body = ClientAuth(client_id, secret, method).prepare(
            "POST", url, headers, add_params_to_qs("", list(parameters.items()))
        )
        return headers, str(body)
