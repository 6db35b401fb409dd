"""A StatsD listener that keeps what it is sent: `async with StatsDListener() as statsd: ... statsd.port ...`."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from types import TracebackType
from typing import Self, cast


@dataclass(frozen=True)
class Sample:
    """One metric line."""

    name: str
    value: float
    kind: str
    """`c` counter, `ms` timer, `g` gauge."""
    relative: bool = False
    """A gauge with a sign: it changes the value instead of setting it."""


def parse(packet: bytes) -> list[Sample]:
    """The samples of one packet. Raises ValueError for a line that is no metric."""
    samples = []
    for line in packet.decode("ascii").splitlines():
        name, colon, rest = line.partition(":")
        value, bar, kind = rest.partition("|")
        kind = kind.partition("|")[0]
        if not (name and colon and bar and kind in {"c", "ms", "g", "s"}):
            raise ValueError(f"no StatsD metric: {line!r}")
        samples.append(Sample(name, float(value), kind, kind == "g" and value[0] in "+-"))
    return samples


class StatsDListener:
    """Listens on a free UDP port of loopback."""

    def __init__(self) -> None:
        self.host = "127.0.0.1"
        self.port = 0
        self.packets: list[bytes] = []
        self.received: list[Sample] = []
        self._waiting: set[asyncio.Event] = set()
        self._transport: asyncio.DatagramTransport | None = None

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        listener = self

        class Protocol(asyncio.DatagramProtocol):
            def datagram_received(self, data: bytes, addr: tuple[str | int, ...]) -> None:
                listener._take(data)

        self._transport, _ = await loop.create_datagram_endpoint(Protocol, local_addr=(self.host, 0))
        self.port = cast(tuple[str, int], self._transport.get_extra_info("sockname"))[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._transport is not None:
            self._transport.close()

    def samples(self, name: str) -> list[Sample]:
        """All samples of that full name so far."""
        return [sample for sample in self.received if sample.name == name]

    def names(self) -> set[str]:
        """The names seen so far."""
        return {sample.name for sample in self.received}

    async def wait_for(self, name: str, *, count: int = 1, timeout: float = 5.0) -> list[Sample]:
        """All samples of that name once there are `count`. Raises AssertionError after `timeout` seconds."""
        arrived = asyncio.Event()
        self._waiting.add(arrived)
        try:
            async with asyncio.timeout(timeout):
                while len(self.samples(name)) < count:
                    arrived.clear()
                    await arrived.wait()
        except TimeoutError:
            raise AssertionError(
                f"{len(self.samples(name))} of {count} {name} within {timeout} s; seen {sorted(self.names())}"
            ) from None
        finally:
            self._waiting.discard(arrived)
        return self.samples(name)

    def _take(self, packet: bytes) -> None:
        self.packets.append(packet)
        self.received.extend(parse(packet))
        for arrived in self._waiting:
            arrived.set()
