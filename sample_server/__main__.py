"""`python -m sample_server`: parse, listen, serve, and end cleanly."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NoReturn

from tornado.netutil import bind_sockets

from tornado_sse_auth import BoundedHTTPServer, ConfigurationError, StoreUnavailableError
from tornado_sse_auth.options import is_loopback_host

from .application import Sample, build_sample
from .demo_session import demo_bearer
from .logs import write_logs
from .options import SampleOptions, parse_options
from .processes import Child, supervise

FULL_COLLECTION = 100  # collections of the middle generation for one of the oldest, instead of 10
CLOSE_TIMEOUT = 1.0  # seconds for connections on which a request is still being answered after the drain


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until Ctrl-C or SIGTERM; the exit status."""
    try:
        options = parse_options(sys.argv if arguments is None else arguments)
    except ConfigurationError as error:
        print(f"sample_server: {error}", file=sys.stderr)
        return 2
    write_logs(options.log_format)
    try:
        port = _Port(options)
    except OSError as error:
        print(f"sample_server: cannot listen on {options.address}:{options.port}: {error.strerror}", file=sys.stderr)
        return 1
    options = replace(options, port=port.number, public_url=_with_port(options.public_url, port.number))
    if options.processes == 1:
        return _run(options, port, None)
    return supervise(options.processes, lambda child: _run(_of_child(options, child), port, child))


def _with_port(public_url: str, port: int) -> str:
    return public_url.removesuffix(":0") + f":{port}" if public_url.endswith(":0") else public_url


def _of_child(options: SampleOptions, child: Child) -> SampleOptions:
    """One StatsD name would hold the gauge of whoever wrote last."""
    instance = f"{options.statsd_instance}-{child.number}" if options.statsd_instance else str(child.number)
    return replace(options, statsd_instance=instance)


class _Port:
    """The port, taken before anything is started, and listened on when all is ready.

    Processes that share a MongoDB may stand side by side on it: those of one parent, and an old one beside the new
    one that takes its place. The kernel spreads connections over all that listen (SO_REUSEPORT).
    """

    def __init__(self, options: SampleOptions) -> None:
        self._address = options.address
        self._shared = bool(options.mongodb_uri)
        self._claimed = self._claim(options.port) if self._shared else bind_sockets(options.port, options.address)
        self.number: int = self._claimed[0].getsockname()[1]

    def _claim(self, port: int) -> list[socket.socket]:
        family, kind, protocol, _, place = socket.getaddrinfo(
            self._address, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        claimed = socket.socket(family, kind, protocol)
        for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
            claimed.setsockopt(socket.SOL_SOCKET, option, 1)
        claimed.bind(place)
        return [claimed]

    def listen(self) -> list[socket.socket]:
        """Sockets of this process that listen."""
        return bind_sockets(self.number, self._address, reuse_port=True) if self._shared else self._claimed


def _run(options: SampleOptions, port: _Port, child: Child | None) -> int:
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(_serve(options, port, child))
    except ConfigurationError as error:
        print(f"sample_server: {error}", file=sys.stderr)
        return 2
    except StoreUnavailableError as error:
        print(
            f"sample_server: MongoDB does not answer where --mongodb-uri says ({error.reason}): is it running, and is "
            "its replica set initiated?",
            file=sys.stderr,
        )
        return 1
    return 0


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's, where the extra `speed` has brought it."""
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


async def _serve(options: SampleOptions, port: _Port, child: Child | None) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    signals = 0

    def on_signal() -> None:
        nonlocal signals
        signals += 1
        if signals > 1:  # asked twice: at once
            os._exit(1)
        stop.set()

    def on_lifeline(lifeline: int) -> None:
        loop.remove_reader(lifeline)
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal)
    if child is not None:
        loop.add_reader(child.lifeline, on_lifeline, child.lifeline)
    async with build_sample(options) as sample:
        server = BoundedHTTPServer(sample.application, **sample.auth.http_server_options())
        server.add_sockets(port.listen())
        if child is None or child.number == 0:
            await sample.watch.start()
        if child is None or (child.number == 0 and not child.successor):
            await _introduce(sample, options)
        _spare_the_loop()
        if child is not None:
            child.ready()
        await stop.wait()
        await sample.auth.close(server)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(server.close_all_connections(), CLOSE_TIMEOUT)


def _spare_the_loop() -> None:
    """Let the cyclic collector seldom look at everything: it stops the loop for about 0.1 ms a stream, and finds
    nothing, since streams leave no cycles. What is there now it need not look at again."""
    gc.freeze()
    young, middle, _ = gc.get_threshold()
    gc.set_threshold(young, middle, FULL_COLLECTION)


async def _introduce(sample: Sample, options: SampleOptions) -> None:
    url = options.public_url
    lines = [
        "",
        f"  The sample server is at {url}",
        f"    in a browser:  open {url} and sign in",
    ]
    if sample.demo is not None:
        bearer = await demo_bearer(url)
        lines += [
            "    in a terminal, signed in as a demo user:",
            "",
            f'curl -N -H "Authorization: Bearer {bearer.reveal()}" {url}/events',
            "",
        ]
    else:
        lines.append("    in a terminal: make a bearer on the page, which shows the curl line for it")
    lines.append(f"    an MCP client: {url}/mcp, which asks its user to sign in; {url} shows how")
    if options.mongodb_uri:
        lines.append("    one of MCP 2024-11-05, at /sse, must stay with one process; all others may come to any")
    lines += [f"    {name}: {place}" for name, place in sample.where]
    if sample.demo is not None:
        lines += [
            "",
            "  *** THE DEMO PROVIDER IS RUNNING: everybody may sign in as anybody. Never for production. ***",
            "  *** Name your own with --issuer, --client-id and --client-secret.                        ***",
        ]
    if url.startswith("http:") and not is_loopback_host(options.address):
        lines += [
            "",
            "  *** IT LISTENS BEYOND THIS MACHINE, in plain http. Right in a container whose port is published  ***",
            "  *** on loopback alone (-p 127.0.0.1:8000:8000); else listen on 127.0.0.1, or behind https.       ***",
        ]
    print("\n".join([*lines, "", "  Ctrl-C ends it.", ""]), flush=True)


def _leave(status: int) -> NoReturn:
    """End without waiting for threads: one of Motor's that reads from a frozen server ends when that one wakes."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    _leave(main())
