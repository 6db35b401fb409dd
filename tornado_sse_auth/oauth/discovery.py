"""Fetching the provider's documents: its metadata from where it may lie, keys and userinfo from where that says."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from ..errors import ConfigurationError, ProviderUnavailableError
from .http import Answer, HTTPClient, NoAnswer
from .metadata import ProviderMetadata, read_metadata, well_known_urls

__all__ = ["discover", "fetch_document", "fetch_metadata"]

# "Not here", in the words of servers that know no such path.
ABSENT = frozenset((400, 401, 403, 404, 405, 410))


async def discover(http: HTTPClient, issuer: str, *, openid: bool, timeout: float) -> ProviderMetadata:
    """The metadata of `issuer`, within `timeout` seconds in all. `openid`: it must do for ID tokens.

    Raises `ProviderUnavailableError`, or `ConfigurationError` where an answer shows that the configuration is wrong.
    """
    return read_metadata(await fetch_metadata(http, issuer, timeout=timeout), issuer=issuer, openid=openid)


async def fetch_metadata(http: HTTPClient, issuer: str, *, timeout: float) -> Mapping[str, Any]:
    """What lies where the metadata of `issuer` may lie, unchecked. Raises what `discover` raises."""
    try:
        async with asyncio.timeout(timeout):
            for url in well_known_urls(issuer):
                answer = await _get(http, url, "metadata", timeout=timeout)
                if answer.status not in ABSENT:
                    break
    except TimeoutError:
        raise ProviderUnavailableError(reason=f"metadata: not complete within {timeout:g} s") from None
    if 300 <= answer.status < 400:
        raise ConfigurationError(f"{url} redirects: give the issuer as the provider's metadata names it")
    return _document(answer, "metadata")


async def fetch_document(
    http: HTTPClient, url: str, what: str, *, timeout: float, headers: Mapping[str, str] | None = None
) -> Mapping[str, Any]:
    """The JSON object at `url`; `what` names it in the log. Raises `ProviderUnavailableError`."""
    return _document(await _get(http, url, what, timeout=timeout, headers=headers), what)


async def _get(
    http: HTTPClient, url: str, what: str, *, timeout: float, headers: Mapping[str, str] | None = None
) -> Answer:
    try:
        return await http.request("GET", url, timeout=timeout, headers=headers)
    except NoAnswer as error:
        raise ProviderUnavailableError(reason=f"{what}: {error.reason}") from error


def _document(answer: Answer, what: str) -> Mapping[str, Any]:
    document = answer.json_object() if answer.ok else None
    if document is None:
        raise ProviderUnavailableError(
            reason=f"{what}: answer {answer.status} without a JSON object", retry_after=answer.retry_after or 2.0
        )
    return document
