"""What is checked before anybody is authenticated: Host, Origin, the peer's address, and how often it has failed."""

from __future__ import annotations

import ipaddress
import itertools
import os
from collections.abc import Sequence
from urllib.parse import urlsplit

from cachetools import TTLCache
from tornado.httputil import HTTPServerRequest

from ..audit import RequestInfo
from ..clock import Clock
from ..errors import InvalidHostError, InvalidOriginError, InvalidRequestError, RateLimitedError
from ..options import IPNetwork, Options, is_loopback_host

__all__ = ["PeerLimiter", "RequestGuard"]

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
WINDOW = 60.0


class PeerLimiter:
    """At most `limit` hits a minute by one peer: an IPv4 address or an IPv6 /64. Remembers 20 000 peers at most."""

    def __init__(self, limit: int, clock: Clock) -> None:
        self._limit = limit
        self._clock = clock
        self._hits: TTLCache[str, list[float]] = TTLCache(maxsize=20_000, ttl=WINDOW, timer=clock.monotonic)

    def hit(self, remote: str) -> None:
        """Count one. Raises `RateLimitedError` beyond the limit."""
        key = _peer(remote)
        now = self._clock.monotonic()
        window = self._hits.get(key)
        if window is None:
            self._hits[key] = window = [now, 0]
        window[1] += 1
        if window[1] > self._limit:
            raise RateLimitedError(retry_after=max(1.0, window[0] + WINDOW - now), reason=f"peer {key}")


def _peer(remote: str) -> str:
    address = _address(remote)
    if address is None or isinstance(address, ipaddress.IPv4Address):
        return remote if address is None else str(address)
    return str(ipaddress.ip_network((address, 64), strict=False))


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address, of IPv4 also where a socket of both kinds writes it as one of IPv6; all of IPv4 is one such /64."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return address if mapped is None else mapped


class RequestGuard:
    """Knows by which names and from which origins the server may be used (DNS rebinding, cross-site requests), and
    which peers are proxies whose forwarded headers count."""

    def __init__(self, options: Options) -> None:
        self._public_url = options.public_url
        self._hosts = options.allowed_hosts
        self._origins = options.allowed_origins
        self._others = options.allowed_origins - {options.public_url}
        self._proxies: Sequence[IPNetwork] = options.trusted_proxies
        self._default_port = ":443" if options.secure else ":80"
        self._prefix = os.urandom(6).hex()
        self._numbers = itertools.count(1)

    # -- who asks --------------------------------------------------------------------------------------------------

    def describe(self, request: HTTPServerRequest) -> RequestInfo:
        """Request id, address and client of this request. Headers of proxies count only from trusted peers."""
        headers = request.headers
        remote = request.remote_ip or "-"
        request_id = ""
        if self._proxies and self._trusted(remote):
            request_id = headers.get("X-Request-ID", "")
            remote = self._forwarded_for(headers.get_list("X-Forwarded-For"), remote)
        if not request_id or len(request_id) > 128 or not (request_id.isascii() and request_id.isprintable()):
            request_id = f"{self._prefix}-{next(self._numbers):x}"
        return RequestInfo(request_id, remote, headers.get("User-Agent", "")[:200])

    def _trusted(self, remote: str) -> bool:
        address = _address(remote)
        return address is not None and any(address in network for network in self._proxies)

    def _forwarded_for(self, values: list[str], remote: str) -> str:
        """The nearest address that is not a trusted proxy's: all further left is the client's own invention."""
        hops = [hop.strip() for value in values for hop in value.split(",")]
        for hop in reversed(hops):
            if _address(hop) is None:
                break
            remote = hop
            if not self._trusted(hop):
                break
        return remote

    # -- may it ----------------------------------------------------------------------------------------------------

    def check_host(self, request: HTTPServerRequest) -> None:
        """Raises `InvalidHostError` for a Host that is none of ours."""
        host = request.headers.get("Host", "")
        if host not in self._hosts and host.lower().removesuffix(self._default_port) not in self._hosts:
            raise InvalidHostError(reason=f"Host {host[:100]!r}")

    def loopback_redirect(self, request: HTTPServerRequest) -> str | None:
        """The same page under the public URL, when it was asked for under another loopback name."""
        host = request.headers.get("Host", "")
        try:
            name = urlsplit(f"//{host}").hostname if host.isascii() and "/" not in host and "@" not in host else None
        except ValueError:  # brackets that hold no address
            return None
        public = urlsplit(self._public_url)
        if not name or not is_loopback_host(name) or not is_loopback_host(public.hostname or ""):
            return None
        if host.rpartition(":")[2] != public.netloc.rpartition(":")[2]:
            return None
        path = request.uri or "/"
        return f"{self._public_url}{path}" if path.startswith("/") and not path.startswith("//") else None

    def check_origin(self, request: HTTPServerRequest) -> None:
        """Raises `InvalidOriginError` for a request that a page of another origin has caused."""
        headers = request.headers
        origin = headers.get("Origin")
        if origin is not None:
            if origin not in self._origins:
                raise InvalidOriginError(reason=f"Origin {origin[:100]!r}")
        elif headers.get("Sec-Fetch-Mode") != "navigate":
            site = headers.get("Sec-Fetch-Site")
            if site is not None and site not in ("same-origin", "none"):
                raise InvalidOriginError(reason=f"a {site[:20]!r} request")

    def cross_origin(self, request: HTTPServerRequest) -> str | None:
        """The origin of a page that is not ours and may read the answer all the same: one of `allowed_origins`."""
        if not self._others:
            return None
        origin = request.headers.get("Origin")
        return origin if origin in self._others else None

    def check_same_origin(self, request: HTTPServerRequest) -> None:
        """For a change of state with a cookie: the browser must say that our own page asks for it."""
        if request.method in SAFE_METHODS:
            return
        headers = request.headers
        if headers.get("Sec-Fetch-Mode") == "no-cors":
            raise InvalidOriginError(reason="Sec-Fetch-Mode no-cors")
        site = headers.get("Sec-Fetch-Site")
        if site is None and headers.get("Origin") is None:
            raise InvalidOriginError(reason="neither Origin nor Sec-Fetch-Site")
        if site is not None and site != "same-origin" and headers.get("Origin") not in self._origins:
            raise InvalidOriginError(reason=f"Sec-Fetch-Site {site[:20]!r}")


def single_arguments(request: HTTPServerRequest, *names: str) -> dict[str, str]:
    """The query parameters called `names`, those that are there. Raises `InvalidRequestError` for one that is
    repeated or not UTF-8: which of two counts is not ours to guess."""
    found: dict[str, str] = {}
    for name in names:
        values = request.query_arguments.get(name, [])
        if len(values) > 1:
            raise InvalidRequestError(f"The parameter {name} is repeated.")
        if values:
            try:
                found[name] = values[0].decode("utf-8")
            except UnicodeDecodeError:
                raise InvalidRequestError(f"The parameter {name} is not UTF-8.") from None
    return found
