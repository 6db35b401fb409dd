"""The options of the middleware: one frozen dataclass, checked when it is made."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from urllib.parse import urlsplit

from .errors import ConfigurationError

__all__ = ["Options", "is_loopback_host", "origin_of"]

DAY = 86_400.0
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network


def is_loopback_host(host: str) -> bool:
    """True for localhost and the loopback addresses."""
    host = host.strip("[]").lower()
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def origin_of(url: str) -> str:
    """The ASCII origin of `url` (RFC 6454, section 6.2). Raises `ConfigurationError` where it has none of http(s)."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ConfigurationError(f"{url!r} is not a URL") from error
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
        raise ConfigurationError(f"{url!r} is not an http(s) origin such as https://app.example")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    default = 443 if parts.scheme == "https" else 80
    return f"{parts.scheme}://{host}" + (f":{port}" if port not in (None, default) else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Options of `SSEAuthenticationMiddleware`: times in seconds, sizes in bytes. Raises `ConfigurationError`.

    `public_url` is the origin by which clients reach the server. `subscription_levels` from lowest to highest.
    `allowed_hosts` and `allowed_origins` come on top of the public URL's own. `trusted_proxies` are networks whose
    forwarded headers count. `max_bad_credentials` and `max_sign_ins` are attempts a minute from one address.
    `max_body` and `max_headers` are what the server reads at all, `request_timeout` is how long a request may take to
    arrive, `max_json_depth` is in levels.
    """

    public_url: str
    subscription_levels: tuple[str, ...] = ()
    allowed_hosts: frozenset[str] = frozenset()
    allowed_origins: frozenset[str] = frozenset()
    trusted_proxies: tuple[IPNetwork, ...] = ()
    session_ttl: float = 30 * DAY
    idle_ttl: float = 14 * DAY
    access_token_ttl: float = 600.0
    session_cache_ttl: float = 5.0
    session_cache_size: int = 100_000
    refresh_fraction: float = 0.9
    refresh_interval: float = 1.0
    refresh_concurrency: int = 10
    reauthorization_grace: float = 60.0
    heartbeat: float = 15.0
    max_stream_buffer: int = 262_144
    max_streams_per_user: int = 100
    max_streams: int | None = None
    max_sessions_per_user: int = 50
    max_bad_credentials: int = 100
    max_sign_ins: int = 120
    max_body: int = 4_194_304
    max_headers: int = 65_536
    max_json_depth: int = 64
    request_timeout: float = 30.0
    drain_timeout: float = 10.0

    def __post_init__(self) -> None:
        origin = origin_of(self.public_url)
        parts = urlsplit(self.public_url)
        if parts.path not in ("", "/") or parts.query or parts.fragment:
            raise ConfigurationError(f"public_url is an origin, without a path: {origin}")
        if parts.scheme == "http" and not is_loopback_host(parts.hostname or ""):
            raise ConfigurationError("public_url must be https beyond loopback: cookies and tokens travel on it")
        object.__setattr__(self, "public_url", origin)
        object.__setattr__(self, "allowed_origins", frozenset(map(origin_of, self.allowed_origins)) | {origin})
        hosts = {host.lower() for host in self.allowed_hosts} | {origin.split("//", 1)[1]}
        object.__setattr__(self, "allowed_hosts", frozenset(hosts))
        for name in (
            "session_ttl",
            "idle_ttl",
            "access_token_ttl",
            "refresh_interval",
            "refresh_concurrency",
            "heartbeat",
            "max_stream_buffer",
            "max_streams_per_user",
            "max_sessions_per_user",
            "max_bad_credentials",
            "max_sign_ins",
            "max_body",
            "max_headers",
            "max_json_depth",
            "request_timeout",
            "session_cache_size",
        ):
            if not getattr(self, name) > 0:
                raise ConfigurationError(f"{name} must be above zero")
        for name in ("session_cache_ttl", "reauthorization_grace", "drain_timeout"):
            if not getattr(self, name) >= 0:
                raise ConfigurationError(f"{name} must not be negative")
        if not 0.1 <= self.refresh_fraction <= 0.99:
            raise ConfigurationError("refresh_fraction is a part of the token's life between 0.1 and 0.99")
        if self.max_streams is not None and self.max_streams <= 0:
            raise ConfigurationError("max_streams must be above zero")

    @property
    def secure(self) -> bool:
        """True when clients reach the server by https."""
        return self.public_url.startswith("https:")
