"""A crowd at the door of the server."""

from __future__ import annotations

import asyncio

from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

from tornado_sse_auth import BoundedHTTPServer

CROWD = 150


async def test_who_is_inside_is_served_before_the_crowd() -> None:
    """REL-18: a hundred and fifty connect at once, and all are served in the end; one who was connected before and
    asks again and again is answered between them. The listening socket was given no room for so many."""
    served: list[str] = []

    class Name(RequestHandler):
        def get(self, name: str) -> None:
            served.append(name)
            self.finish(name)

    server = BoundedHTTPServer(Application([(r"/(.*)", Name)]))
    (listener,) = bind_sockets(0, "127.0.0.1", backlog=1)
    server.add_socket(listener)
    port = listener.getsockname()[1]

    async def ask(name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(f"GET /{name} HTTP/1.1\r\nHost: here\r\n\r\n".encode())
        await reader.readuntil(f"\r\n\r\n{name}".encode())

    inside = await asyncio.open_connection("127.0.0.1", port)
    await ask("inside", *inside)
    crowd = [await asyncio.open_connection("127.0.0.1", port) for _ in range(CROWD)]
    served.clear()
    async with asyncio.timeout(30):
        waiting = [asyncio.create_task(ask("crowd", *each)) for each in crowd]
        for _ in range(5):
            await ask("inside", *inside)
        before = served.index("inside")
        await asyncio.gather(*waiting)
    assert before < CROWD / 2
    assert served.count("crowd") == CROWD
    assert served.count("inside") == 5
    for _, writer in [inside, *crowd]:
        writer.close()
    server.stop()
    await server.close_all_connections()
