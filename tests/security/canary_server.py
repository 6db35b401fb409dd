"""The sample server, all its loggers at DEBUG, with two handlers that try to give away what it holds.

Its own process: the test's clients log what they send, too. Every log record is written with all its attributes, as a
structured logger would.
"""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import json
import logging
import pickle
import signal
import sys
from typing import Any

from tornado.httpserver import HTTPServer
from tornado.web import RequestHandler

from sample_server.application import build_sample
from sample_server.options import parse_options
from tornado_sse_auth import SSEAuthMixin


class Everything(logging.Formatter):
    """Message, traceback, and every attribute of the record."""

    def format(self, record: logging.LogRecord) -> str:
        return f"{super().format(record)} {vars(record)!r}"


def dump(thing: object) -> list[str]:
    """An object by every way in which a careless program writes one down. A way that refuses gives nothing."""
    written = []
    ways = (repr, str, format, pickle.dumps, json.dumps, vars, dataclasses.asdict, dataclasses.astuple)
    for way in ways:
        try:
            written.append(repr(way(thing)))  # type: ignore[operator]
        except Exception as error:
            written.append(repr(error))
    return written


class Spill(RequestHandler):
    """Every object of ours that lives in this process, dumped."""

    def get(self) -> None:
        gc.collect()
        ours = [
            thing for thing in gc.get_objects() if type(thing).__module__.startswith(("tornado_sse_auth", "sample"))
        ]
        self.set_header("Content-Type", "text/plain")
        self.write("\n".join(line for thing in ours for line in dump(thing)))


class Failing(SSEAuthMixin, RequestHandler):
    """Fails with the upstream token in its hands."""

    async def get(self) -> None:
        token = await self.upstream_access_token()
        raise RuntimeError(f"could not use {token}")


async def main() -> None:
    """Serve until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    options = parse_options(sys.argv)
    async with build_sample(options) as sample:
        more: list[Any] = [(r"/spill", Spill), (r"/failing", Failing)]
        sample.application.add_handlers(r".*", more)
        server = HTTPServer(sample.application, **sample.auth.http_server_options())
        server.listen(options.port, options.address)
        print("serving", flush=True)
        await stop.wait()
        server.stop()
        await server.close_all_connections()
    print("ended", flush=True)


if __name__ == "__main__":
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(Everything("%(levelname)s %(name)s %(message)s"))
    logging.basicConfig(level=logging.DEBUG, handlers=[handler])
    asyncio.run(main(), debug=True)
