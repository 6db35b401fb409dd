"""A Tornado application on a free port, in the test's own loop: `async with listening(application) as origin`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application


@asynccontextmanager
async def listening(application: Application, **options: Any) -> AsyncIterator[str]:
    """Serve on 127.0.0.1 and give the origin, `http://127.0.0.1:port`; `options` are those of `HTTPServer`.

    At the end every connection is closed, streams included.
    """
    server = HTTPServer(application, **options)
    sockets = bind_sockets(0, "127.0.0.1")
    server.add_sockets(sockets)
    try:
        yield f"http://127.0.0.1:{sockets[0].getsockname()[1]}"
    finally:
        server.stop()
        await server.close_all_connections()
