"""Connections to the public Internet only: what a stranger's URL makes us connect to is nothing of our own network."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Any

import httpcore

__all__ = ["PublicNetwork", "is_public", "resolve"]

MAX_LOOK_UPS = 64  # at a time; more than there are fetches, for a name may hang on after its fetch was given up

# Addresses that carry an IPv4 address inside, which a gateway on the way would unpack; then what networks still use
# inside although the registry of special addresses, which Python follows, has it no longer or not yet.
REFUSED = tuple(
    ip_network(text)
    for text in (
        "64:ff9b::/96",
        "64:ff9b:1::/48",
        "2002::/16",
        "2001::/32",
        "::/96",
        "fec0::/10",
        "3fff::/20",
        "192.88.99.0/24",
        "192.0.0.0/24",
    )
)


# Strangers' names may take their name servers' time, which no deadline of ours cuts short: they wait in threads of
# their own, not in those of the loop, which the provider's name needs.
_threads = ThreadPoolExecutor(MAX_LOOK_UPS, thread_name_prefix="resolve")


async def resolve(host: str, port: int) -> Sequence[str]:
    """The addresses of `host`, as the system knows them. Raises `OSError`."""
    look_up = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    found = await asyncio.get_running_loop().run_in_executor(_threads, look_up)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def is_public(address: str) -> bool:
    """Whether the address is one of the public Internet: not loopback, private, link-local, shared, multicast or
    reserved, nor one that leads there by translation."""
    try:
        parsed = ip_address(address)
    except ValueError:  # also one with a zone: only local addresses have those
        return False
    if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped:
        return False
    if any(parsed in network for network in REFUSED):
        return False
    return parsed.is_global and not parsed.is_multicast and not parsed.is_reserved


class PublicNetwork(httpcore.AsyncNetworkBackend):
    """Resolves a name once, refuses it unless all its addresses are public, and connects to one of those: there is no
    second resolution that might answer something else."""

    def __init__(
        self, resolver: Callable[[str, int], Awaitable[Sequence[str]]], backend: httpcore.AsyncNetworkBackend
    ) -> None:
        self._resolver = resolver
        self._backend = backend

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """A connection to `host`, by address. Raises `httpcore.ConnectError`."""
        try:
            addresses = await self._resolver(host.strip("[]"), port)
        except OSError as error:
            raise httpcore.ConnectError(f"{host} does not resolve") from error
        if not addresses or not all(map(is_public, addresses)):
            raise httpcore.ConnectError(f"{host} is not a host of the public Internet")
        for address in addresses[:-1]:
            try:
                return await self._backend.connect_tcp(address, port, timeout, local_address, socket_options)
            except httpcore.NetworkError:
                continue
        return await self._backend.connect_tcp(addresses[-1], port, timeout, local_address, socket_options)

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Never."""
        raise httpcore.ConnectError("a URL does not lead to a socket of this machine")

    async def sleep(self, seconds: float) -> None:
        """For httpcore's retries, of which there are none."""
        await self._backend.sleep(seconds)
