"""What all endpoints have in common: a request as data, an answer as data, and the Tornado handler between them."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar
from urllib.parse import parse_qsl

from tornado.web import RequestHandler

from ..errors import AuthError, InvalidRequestError, MethodNotAllowedError
from ..web.handler import ErrorAnswers
from ..web.responses import Answer
from .errors import InvalidTargetError

__all__ = ["Endpoint", "EndpointHandler", "EndpointRequest", "json_answer", "read_form", "single"]

FORM = "application/x-www-form-urlencoded"
MAX_FIELDS = 50
CORS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Headers": "Authorization, Content-Type, MCP-Protocol-Version",
    "Access-Control-Max-Age": "7200",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointRequest:
    """A request as far as endpoints look at it. `remote`: the peer's address."""

    method: str
    headers: Mapping[str, str]
    body: bytes
    remote: str


class Endpoint(ABC):
    """One endpoint: a request in, an answer out, errors raised as `AuthError`s. For programs, from pages of any origin:
    no cookie counts here, so none is asked for."""

    methods: ClassVar[tuple[str, ...]]

    @abstractmethod
    async def answer(self, request: EndpointRequest) -> Answer:
        """Serve one of `methods`."""


class EndpointHandler(ErrorAnswers, RequestHandler):
    """Serves an `Endpoint`."""

    sign_in_redirect = False
    max_body = 65_536

    def initialize(self, endpoint: Endpoint) -> None:
        """`endpoint`: whose handler this is."""
        self.endpoint = endpoint

    def prepare(self) -> None:
        """Host and method are checked; nobody is asked who they are."""
        self.identify_request()
        self.sse_auth.guard.check_host(self.request)
        self._open_to_pages()
        if self.request.method not in (*self.endpoint.methods, "OPTIONS"):
            raise MethodNotAllowedError()

    def options(self) -> None:
        """The preflight of a page of any origin."""
        self.set_header("Access-Control-Allow-Methods", ", ".join(self.endpoint.methods))
        self.set_status(204)
        self.finish()

    async def get(self) -> None:
        """Serve it."""
        await self._serve()

    async def post(self) -> None:
        """Serve it."""
        await self._serve()

    async def _serve(self) -> None:
        answer = await self.endpoint.answer(
            EndpointRequest(
                method=self.request.method or "",
                headers=self.request.headers,
                body=self.request.body,
                remote=self.request_info.remote,
            )
        )
        self._write(answer)

    def write_answer(self, error: AuthError, answer: Answer) -> None:
        """Errors, too, are for pages of any origin. 401 speaks of the client's own authentication (RFC 6749, 5.2)."""
        self._open_to_pages()
        headers = dict(answer.headers)
        if answer.status == 401:
            headers["WWW-Authenticate"] = 'Basic realm="oauth"'
        if isinstance(error, MethodNotAllowedError):
            headers["Allow"] = ", ".join((*self.endpoint.methods, "OPTIONS"))
        self._write(Answer(answer.status, answer.body, headers))

    def _open_to_pages(self) -> None:
        """Pages of any origin, and no credentials of the browser's along with them."""
        self.clear_header("Access-Control-Allow-Credentials")
        for name, value in CORS.items():
            self.set_header(name, value)

    def _write(self, answer: Answer) -> None:
        self.set_status(answer.status)
        for name, value in answer.headers.items():
            self.set_header(name, value)
        self.finish(answer.body)


def json_answer(document: Mapping[str, Any], status: int = 200) -> Answer:
    """JSON."""
    return Answer(status, json.dumps(document).encode(), {"Content-Type": "application/json; charset=utf-8"})


def read_form(request: EndpointRequest) -> dict[str, str]:
    """The fields of a form, each of which came once (RFC 6749, section 3.2). Raises `InvalidRequestError`, and
    `InvalidTargetError` for more than one `resource`."""
    media_type = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if media_type != FORM:
        raise InvalidRequestError(f"The body is {FORM}.")
    try:
        pairs = parse_qsl(
            request.body.decode("ascii"), keep_blank_values=True, max_num_fields=MAX_FIELDS, errors="strict"
        )
    except ValueError:
        raise InvalidRequestError("The form is malformed.") from None
    fields: dict[str, list[str]] = {}
    for name, value in pairs:
        fields.setdefault(name, []).append(value)
    return single(fields)


def single(fields: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Each field's value; one without a value is as good as absent (RFC 6749, section 3.1). Raises
    `InvalidRequestError` for one that is repeated: which of two counts is not ours to guess."""
    found: dict[str, str] = {}
    for name, values in fields.items():
        if len(values) > 1:
            if name == "resource":
                raise InvalidTargetError("One resource at a time.")
            raise InvalidRequestError("A parameter is repeated.", reason=f"{name[:50]!r} came {len(values)} times")
        if values and values[0]:
            found[name] = values[0]
    return found
