"""The options of the sample server: command line (tornado.options), else the environment, else the default."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from tornado.options import Error, OptionParser

from tornado_sse_auth import ConfigurationError, Keyring, Secret
from tornado_sse_auth.options import is_loopback_host

from .logs import FORMATS

__all__ = ["SampleOptions", "parse_options"]

DAY = 86_400

# name, default, help: the type of the default is the type of the option.
_OPTIONS: tuple[tuple[str, Any, str], ...] = (
    ("port", 8000, "where it listens"),
    ("address", "127.0.0.1", "where it listens"),
    ("public-url", "", "the origin by which clients reach it; default http://address:port"),
    ("mongodb-uri", "", "where sessions and events live; without it in memory, for one process"),
    ("mongodb-database", "tornado_sse_auth", "the name of the database"),
    ("mongodb-driver", "motor", "motor or pymongo"),
    ("issuer", "", "the OpenID or OAuth provider; without it the built-in demo provider"),
    ("client-id", "", "this server's id at the provider"),
    ("client-secret", "", "this server's secret at the provider"),
    ("scopes", "openid offline_access profile content:read events:write", "what is asked for at sign-in"),
    ("grant-scopes", "", "scopes given to every user, for providers that know none of ours"),
    ("encryption-keys", "", "base64 keys of 32 bytes, separated by commas: the first seals, all open"),
    ("statsd", "", "host:port of a StatsD"),
    ("statsd-prefix", "tornado_sse_auth", "what every metric's name begins with"),
    ("statsd-instance", "", "what every gauge's name ends with; --processes adds the number of the process"),
    ("access-token-ttl", 600, "seconds an access token of /oauth/token is good for"),
    ("session-ttl", 30 * DAY, "seconds a session lives"),
    ("idle-ttl", 14 * DAY, "seconds a session lives unused"),
    ("refresh-interval", 1.0, "seconds between ticks of the refresh manager"),
    ("log-format", "text", "text, or json: an object a line"),
    ("processes", 1, "forked processes on one port; more than one needs --mongodb-uri and --issuer"),
    ("allowed-hosts", "", "more hosts, separated by commas"),
    ("allowed-origins", "", "more origins, separated by commas"),
    ("trusted-proxies", "", "networks whose forwarded headers count, separated by commas"),
    ("max-streams", 0, "open streams in all; 0: by the limit of open files"),
    ("max-streams-per-user", 100, "open streams of one user"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleOptions:
    """The options, checked as far as they concern each other."""

    port: int
    address: str
    public_url: str
    mongodb_uri: Secret
    mongodb_database: str
    mongodb_driver: str
    issuer: str
    client_id: str
    client_secret: Secret
    scopes: str
    grant_scopes: frozenset[str]
    encryption_keys: Secret
    statsd: tuple[str, int] | None
    statsd_prefix: str
    statsd_instance: str | None
    access_token_ttl: float
    session_ttl: float
    idle_ttl: float
    refresh_interval: float
    log_format: str
    processes: int
    allowed_hosts: tuple[str, ...]
    allowed_origins: tuple[str, ...]
    trusted_proxies: tuple[str, ...]
    max_streams: int | None
    max_streams_per_user: int


def parse_options(arguments: Sequence[str], environment: Mapping[str, str] = os.environ) -> SampleOptions:
    """From a command line (with the program's name first) and the environment, where each option is SAMPLE_<NAME>.

    Raises `ConfigurationError` with a text for the person at the terminal.
    """
    parser = OptionParser()
    try:
        for name, default, text in _OPTIONS:
            variable = f"SAMPLE_{name.upper().replace('-', '_')}"
            parser.define(name, default=default, type=type(default), help=f"{text} ({variable})")
            if variable in environment:
                parser[name] = _converted(variable, environment[variable], default)
        if "--help" in arguments:
            parser.print_help(sys.stdout)  # tornado.options would print it to standard error
            sys.exit(0)
        joined = _joined(arguments)
        for name, default, _ in _OPTIONS:  # tornado.options would not say which one it cannot read
            for argument in joined[1:]:
                if argument.startswith(f"--{name}="):
                    _converted(f"--{name}", argument.partition("=")[2], default)
        rest = parser.parse_command_line(joined)
    except Error as error:
        raise ConfigurationError(str(error)) from None
    if rest:
        raise ConfigurationError(f"no arguments are expected, only options: {' '.join(rest)}")
    return _checked({name.replace("-", "_"): parser[name] for name, _, _ in _OPTIONS})


def _joined(arguments: Sequence[str]) -> list[str]:
    """`--name value` as `--name=value`, the one form that tornado.options knows."""
    joined: list[str] = []
    for argument in arguments:
        before = joined[-1] if len(joined) > 1 else ""
        if before.startswith("--") and "=" not in before and before != "--help" and not argument.startswith("--"):
            joined[-1] = f"{before}={argument}"
        else:
            joined.append(argument)
    return joined


def _converted(name: str, text: str, default: Any) -> Any:
    try:
        return type(default)(text)
    except ValueError:
        raise ConfigurationError(f"{name} is a number, not {text!r}") from None


def _checked(values: dict[str, Any]) -> SampleOptions:
    if values["mongodb_driver"] not in ("motor", "pymongo"):
        raise ConfigurationError("--mongodb-driver is motor or pymongo")
    if values["log_format"] not in FORMATS:
        raise ConfigurationError(f"--log-format is {' or '.join(FORMATS)}")
    if values["processes"] < 1:
        raise ConfigurationError("--processes is at least 1")
    if values["processes"] > 1 and not (values["mongodb_uri"] and values["issuer"] and values["encryption_keys"]):
        raise ConfigurationError(
            "--processes above 1 needs --mongodb-uri, --issuer and --encryption-keys: processes share nothing but these"
        )
    if values["encryption_keys"]:
        Keyring.from_base64(values["encryption_keys"])  # also where no database needs them yet
    if values["issuer"] and not values["client_id"]:
        raise ConfigurationError("--issuer needs --client-id")
    host = f"[{values['address']}]" if ":" in values["address"] else values["address"]
    values["public_url"] = values["public_url"] or f"http://{host}:{values['port']}"
    if not values["issuer"] and not is_loopback_host(urlsplit(values["public_url"]).hostname or ""):
        raise ConfigurationError(
            "the built-in demo provider, where everybody signs in as anybody, runs on loopback only: name yours with "
            "--issuer, --client-id and --client-secret"
        )
    values["statsd"] = _host_and_port(values["statsd"]) if values["statsd"] else None
    values["statsd_instance"] = values["statsd_instance"] or None
    values["max_streams"] = values["max_streams"] or None
    values["grant_scopes"] = frozenset(values["grant_scopes"].split())
    for name in ("allowed_hosts", "allowed_origins", "trusted_proxies"):
        values[name] = tuple(part.strip() for part in values[name].split(",") if part.strip())
    for name in ("mongodb_uri", "client_secret", "encryption_keys"):
        values[name] = Secret(values[name])
    return SampleOptions(**values)


def _host_and_port(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit():
        raise ConfigurationError("--statsd is host:port")
    return host.strip("[]"), int(port)
