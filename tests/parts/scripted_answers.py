"""How a scripted provider answers: the answers that can be scripted, and the handlers that deliver them."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import struct
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol
from urllib.parse import urlencode

from tornado.http1connection import HTTP1Connection
from tornado.httputil import HTTPHeaders
from tornado.iostream import StreamClosedError
from tornado.web import RequestHandler

Endpoint = Literal["discovery", "jwks", "token", "check", "userinfo", "revoke"]
Delivery = Literal["whole", "cut", "cut_midway", "hang", "drip", "gzip", "endless"]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """How one call is answered. Without any field: as an ordinary provider would."""

    spends: bool | None = None
    """Whether the call has its effect (a code or refresh token is used up); None: unless `status` is an error."""
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | str | None = None
    """Instead of the ordinary one."""
    change: Mapping[str, Any] = field(default_factory=dict)
    """Fields that replace those of the ordinary JSON; None takes one out."""
    delay: float = 0.0
    """Seconds between the effect and the answer."""
    gate: asyncio.Event | None = None
    """Answered only once this is set."""
    delivery: Delivery = "whole"
    """How the body goes out. `cut`: the connection is reset without an answer; `cut_midway`: after half of the body;
    `hang`: nothing while the client waits; `drip`: a byte each 50 ms; `endless`: a body without an end."""

    @property
    def has_effect(self) -> bool:
        """Whether the provider does what it was asked, whatever it then answers."""
        return self.spends if self.spends is not None else self.status is None or self.status < 400


@dataclass(frozen=True, kw_only=True)
class Call:
    """One request that arrived."""

    endpoint: str
    form: Mapping[str, str]
    headers: HTTPHeaders
    at: float
    """Monotonic time."""


class ActingProvider(Protocol):
    """What the handlers need of the provider."""

    issuer: str
    authorize_error: str | None

    def arrived(self, call: Call) -> Answer:
        """Note a call; gives its answer."""

    def act(self, call: Call) -> tuple[int, dict[str, Any]]:
        """What an ordinary provider does and answers: status and JSON."""

    def new_code(self, query: Mapping[str, str]) -> str:
        """A code for whom `login_hint` names."""


class EndpointHandler(RequestHandler):
    """Every endpoint but authorization: the call has its effect or not, then the answer is delivered or not."""

    def initialize(self, endpoint: str, provider: ActingProvider) -> None:
        self.endpoint = endpoint
        self.provider = provider
        self.gone = asyncio.Event()

    def on_connection_close(self) -> None:
        self.gone.set()

    async def get(self) -> None:
        await self._answer()

    async def post(self) -> None:
        await self._answer()

    async def _answer(self) -> None:
        form = {name: values[-1].decode() for name, values in self.request.body_arguments.items()}
        call = Call(endpoint=self.endpoint, form=form, headers=self.request.headers, at=time.monotonic())
        answer = self.provider.arrived(call)
        status, ordinary = self.provider.act(call) if answer.has_effect else (200, {})
        if answer.delay:
            await asyncio.sleep(answer.delay)
        if answer.gate is not None:
            await _first(answer.gate, self.gone)
        changed = {name: value for name, value in {**ordinary, **answer.change}.items() if value is not None}
        body = json.dumps(changed) if answer.body is None else answer.body
        self.set_status(answer.status or status)
        self.set_header("Content-Type", "application/json")
        self.set_header("Cache-Control", "no-store")
        for name, value in answer.headers.items():
            self.set_header(name, value)
        with suppress(StreamClosedError):
            await self._deliver(answer.delivery, body.encode() if isinstance(body, str) else body)

    async def _deliver(self, delivery: Delivery, body: bytes) -> None:
        match delivery:
            case "whole":
                self.write(body)
            case "gzip":
                self.set_header("Content-Encoding", "gzip")
                self.write(gzip.compress(body))
            case "hang":
                await self.gone.wait()
                self._auto_finish = False
            case "cut":
                self._reset()
            case "cut_midway":
                self.set_header("Content-Length", str(len(body)))
                self.write(body[: len(body) // 2])
                await self.flush()
                self._reset()
            case "drip":
                for position in range(len(body)):
                    self.write(body[position : position + 1])
                    await self.flush()
                    await asyncio.sleep(0.05)
            case "endless":
                while not self.gone.is_set():
                    self.write(b" " * 65_536)
                    await self.flush()

    def _reset(self) -> None:
        connection = self.request.connection
        assert isinstance(connection, HTTP1Connection)
        # Closing a socket that lingers for 0 s sends RST instead of FIN.
        connection.stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.stream.close()
        self._auto_finish = False


class AuthorizeHandler(RequestHandler):
    """Sends everybody straight back with a code."""

    def initialize(self, provider: ActingProvider) -> None:
        self.provider = provider

    def get(self) -> None:
        query = {name: values[-1].decode() for name, values in self.request.query_arguments.items()}
        back = {"state": query.get("state", ""), "iss": self.provider.issuer}
        if error := self.provider.authorize_error:
            back["error"] = error
        else:
            back["code"] = self.provider.new_code(query)
        self.redirect(query["redirect_uri"] + "?" + urlencode(back))


async def _first(*events: asyncio.Event) -> None:
    waits = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
