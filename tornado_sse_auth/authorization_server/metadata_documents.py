"""Clients that publish who they are: a client id that is the URL of a metadata document (OAuth Client ID Metadata
Document). Fetched with the care that a URL from a stranger needs."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from urllib.parse import unquote, urlsplit

import httpcore
import httpx
from cachetools import TLRUCache

from ..clock import Clock
from ..errors import AuthError
from ..web.json_body import read_json_object
from .client_metadata import ClientMetadata, read_client_metadata
from .errors import InvalidClientError
from .public_network import PublicNetwork, resolve

__all__ = ["MetadataDocuments", "Resolver", "is_document_url"]

Resolver = Callable[[str, int], Awaitable[Sequence[str]]]

MAX_DOCUMENT = 5 * 1024
MAX_URL = 1000
TIMEOUT = 5.0  # seconds for everything, from the resolution of the name to the last byte
MAX_FETCHES = 50  # at a time: more than one peer can keep busy, at two requests a second of five seconds each
MAX_CACHED = 1000
FAILURE_TTL = 60.0
DEFAULT_TTL = 300.0
MAX_TTL = 86_400.0
DOCUMENT_URL = re.compile(
    r"https://[A-Za-z0-9.\-\[\]:]+/[A-Za-z0-9\-._~!$&'()*+,;=:@%/]+(?:\?[A-Za-z0-9\-._~!$&'()*+,;=:@%/?]*)?"
)
MAX_AGE = re.compile(r"max-age=\"?(\d{1,9})")


def is_document_url(client_id: str) -> bool:
    """Whether the client id means a document. Whether its URL is acceptable is another question."""
    return client_id.startswith(("https://", "http://"))


class MetadataDocuments:
    """Fetches and keeps the documents: as long as their headers say and at most a day, failures for a minute.

    `resolver(host, port)` gives addresses; only public ones are connected to. `backend` makes the connections, `tls`
    says whose certificates count. All three are for networks with ways of their own, and for tests. `max_json_depth` is
    in levels of a document.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        resolver: Resolver = resolve,
        backend: httpcore.AsyncNetworkBackend | None = None,
        tls: ssl.SSLContext | None = None,
        max_json_depth: int = 64,
    ) -> None:
        self._network = PublicNetwork(resolver, backend or httpcore.AnyIOBackend())
        self._tls = tls
        self._max_json_depth = max_json_depth
        self._slots = asyncio.Semaphore(MAX_FETCHES)
        self._known: TLRUCache[str, tuple[ClientMetadata | str, float]] = TLRUCache(
            maxsize=MAX_CACHED, ttu=lambda _url, entry, now: now + entry[1], timer=clock.monotonic
        )

    async def fetch(self, url: str) -> ClientMetadata:
        """The metadata at `url`, within five seconds. Raises `InvalidClientError`."""
        found = self._known.get(url)
        if found is None:
            found = await self._fetch(url)
            if found[1] > 0:
                self._known[url] = found
        document, _ = found
        if isinstance(document, str):
            raise InvalidClientError("The client's metadata document cannot be used.", reason=document)
        return document

    async def _fetch(self, url: str) -> tuple[ClientMetadata | str, float]:
        """What to keep of a fetch, and for how many seconds: the metadata, or why there is none."""
        busy = self._slots.locked()
        try:
            check_document_url(url)
            async with asyncio.timeout(TIMEOUT), self._slots:
                body, ttl = await self._get(url)
            return read_document(url, body, max_depth=self._max_json_depth), ttl
        except TimeoutError:
            # Where others kept it waiting that is not this document's fault, and is not held against it.
            return f"no complete document within {TIMEOUT:g} s", 0.0 if busy else FAILURE_TTL
        except (AuthError, UnacceptableDocument) as error:
            return str(error), FAILURE_TTL
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException, OSError, ValueError) as error:
            return type(error).__name__, FAILURE_TTL

    async def _get(self, url: str) -> tuple[bytes, float]:
        # Made once: it reads all the authorities' certificates, and the loop stands still meanwhile.
        tls = self._tls = self._tls or httpx.create_ssl_context()
        headers = [
            ("Host", urlsplit(url).netloc),
            ("Accept", "application/json"),
            ("Accept-Encoding", "identity"),
            ("User-Agent", "tornado_sse_auth"),
        ]
        # Of its own for each fetch: nothing is shared between one stranger's server and another's, no proxy is used.
        async with (
            httpcore.AsyncConnectionPool(ssl_context=tls, network_backend=self._network) as pool,
            pool.stream("GET", url, headers=headers) as answer,
        ):
            if answer.status != 200:  # a redirect, too
                raise UnacceptableDocument(f"status {answer.status}")
            fields = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in answer.headers}
            if fields.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
                raise UnacceptableDocument("a content encoding that was not asked for")
            body = bytearray()
            async for chunk in answer.aiter_stream():
                body += chunk
                if len(body) > MAX_DOCUMENT:
                    raise UnacceptableDocument(f"larger than {MAX_DOCUMENT} bytes")
        return bytes(body), lifetime(fields.get("cache-control", ""))


class UnacceptableDocument(Exception):  # noqa: N818 - a fact about the document
    """Why it is not used; for the log."""


def check_document_url(url: str) -> None:
    """Raises `UnacceptableDocument` for a URL that is no client id: https with a path, without user, fragment or dot
    segments."""
    try:
        parts = urlsplit(url)
        acceptable = bool(DOCUMENT_URL.fullmatch(url)) and len(url) <= MAX_URL and bool(parts.hostname)
        _ = parts.port
    except ValueError:
        acceptable = False
    if not acceptable or any(part in (".", "..") for part in unquote(urlsplit(url).path).split("/")):
        raise UnacceptableDocument("the client id is no acceptable URL")


def read_document(url: str, body: bytes, *, max_depth: int) -> ClientMetadata:
    """The metadata of a document. Raises `UnacceptableDocument`, and what `read_client_metadata` and `read_json_object`
    raise."""
    document: dict[str, Any] = read_json_object(body, max_depth=max_depth)
    if document.get("client_id") != url:
        raise UnacceptableDocument("the document names another client id")
    if "client_secret" in document or document.get("token_endpoint_auth_method", "none") != "none":
        # A published secret is none, and of keys this server knows nothing.
        raise UnacceptableDocument("the document is of a client that is not public")
    return read_client_metadata(document, default_auth_method="none")


def lifetime(cache_control: str) -> float:
    """Seconds for which the `Cache-Control` of a document lets it be kept."""
    directives = cache_control.lower()
    if "no-store" in directives or "no-cache" in directives:
        return 0.0
    match = MAX_AGE.search(directives)
    return min(float(match[1]), MAX_TTL) if match else DEFAULT_TTL
