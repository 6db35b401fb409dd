"""`python -m sample_server`: parse, listen, serve, and end cleanly."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Sequence
from dataclasses import replace

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.process import fork_processes, task_id

from tornado_sse_auth import ConfigurationError, RequestIdFilter, StoreUnavailableError

from .application import Sample, build_sample
from .demo_session import demo_bearer
from .options import SampleOptions, parse_options

_log = logging.getLogger("sample_server")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until Ctrl-C or SIGTERM; the exit status."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s [%(request_id)s] %(message)s", level=logging.INFO)
    for handler in logging.getLogger().handlers:
        handler.addFilter(RequestIdFilter())
    for noisy in ("httpx", "httpcore", "tornado.access"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    try:
        options = parse_options(sys.argv if arguments is None else arguments)
        sockets = bind_sockets(options.port, options.address, reuse_port=False)
        if options.port == 0:
            options = _with_bound_port(options, sockets[0])
        if options.processes > 1:
            fork_processes(options.processes, max_restarts=100)
            options = replace(options, statsd_instance=options.statsd_instance or str(task_id() or 0))
        asyncio.run(_serve(options, sockets))
    except ConfigurationError as error:
        print(f"sample_server: {error}", file=sys.stderr)
        return 2
    except StoreUnavailableError as error:
        print(f"sample_server: the session store does not answer: {error.reason}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"sample_server: cannot listen on {options.address}:{options.port}: {error.strerror}", file=sys.stderr)
        return 1
    return 0


def _with_bound_port(options: SampleOptions, bound: socket.socket) -> SampleOptions:
    port = bound.getsockname()[1]
    return replace(options, port=port, public_url=options.public_url.removesuffix(":0") + f":{port}")


async def _serve(options: SampleOptions, sockets: list[socket.socket]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal() -> None:
        if stop.is_set():  # asked twice: at once
            os._exit(1)
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal)
    async with build_sample(options) as sample:
        server = HTTPServer(sample.application, **sample.auth.http_server_options())
        server.add_sockets(sockets)
        if not task_id():
            await _introduce(sample, options)
        await stop.wait()
        await sample.auth.close()
        server.stop()
        await server.close_all_connections()


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
    lines += [f"    {name}: {place}" for name, place in sample.where]
    if sample.demo is not None:
        lines += [
            "",
            "  *** THE DEMO PROVIDER IS RUNNING: everybody may sign in as anybody. Never for production. ***",
            "  *** Name your own with --issuer, --client-id and --client-secret.                        ***",
        ]
    print("\n".join([*lines, "", "  Ctrl-C ends it.", ""]), flush=True)


if __name__ == "__main__":
    sys.exit(main())
