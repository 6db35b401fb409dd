"""The one HTTP client towards the provider: one deadline and one size for a whole call, no redirects, no cookies."""

from __future__ import annotations

import asyncio
import json
import math
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any

import httpx

from ..clock import Clock

__all__ = [
    "MAX_BODY",
    "MAX_RETRY_AFTER",
    "Answer",
    "Certificate",
    "HTTPClient",
    "NoAnswer",
    "parse_json",
    "parse_retry_after",
]

MAX_BODY = 256 * 1024
MAX_RETRY_AFTER = 300.0
MAX_JSON_DEPTH = 64
# Below the 5 s after which Node.js and others close an idle connection: a request that meets the closing is one whose
# refresh token may be spent or not, and nobody can tell.
KEEPALIVE = 2.0
# Part of the deadline that the TCP handshake may take, and the TLS handshake too. httpcore closes the socket when these
# run out, but not when the call is cancelled during the TLS handshake, which is what the end of the deadline does.
HANDSHAKE_PART = 0.45
MOMENT = 0.25  # seconds


class NoAnswer(Exception):  # noqa: N818 - a fact about the call
    """No complete answer came. `sent`: bytes of the request may have reached the provider. `reason` is for the log."""

    def __init__(self, reason: str, *, sent: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.sent = sent


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An answer, whatever its status. `retry_after`: seconds, or None where there is no sane one."""

    status: int
    body: bytes
    retry_after: float | None = None

    @property
    def ok(self) -> bool:
        """True for 2xx."""
        return 200 <= self.status < 300

    def json_object(self) -> dict[str, Any] | None:
        """The body as a JSON object, or None where it is anything else."""
        try:
            value = parse_json(self.body)
        except ValueError:
            return None
        return value if isinstance(value, dict) else None


@dataclass(frozen=True, slots=True)
class Certificate:
    """From when to when a server's certificate holds, epoch seconds."""

    begins_at: float
    ends_at: float


class HTTPClient:
    """A pooled HTTP/1.1 client. `aclose()` it; after that every call raises `NoAnswer`."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._closed = False
        self.certificate: Certificate | None = None
        """The one that was shown last; None over plain http."""
        self._client = httpx.AsyncClient(
            # certifi's roots, or those that SSL_CERT_FILE and SSL_CERT_DIR name for private providers
            verify=httpx.create_ssl_context(),
            trust_env=False,
            follow_redirects=False,
            timeout=None,  # noqa: S113 - request() has one deadline over everything; httpx only has one for each read
            limits=httpx.Limits(max_connections=100, max_keepalive_connections=20, keepalive_expiry=KEEPALIVE),
            # One user's calls must not carry what the provider set for another's.
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            headers={"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "tornado_sse_auth"},
        )

    async def request(
        self,
        method: str,
        url: str,
        *,
        timeout: float,
        headers: Mapping[str, str] | None = None,
        body: str | None = None,
        before_sending: Callable[[], None] | None = None,
    ) -> Answer:
        """One request, at most `timeout` seconds from name resolution to the last byte. Raises `NoAnswer`, and what
        `before_sending` raises, which is called when the first byte is about to leave: then none does.

        Of an answer that is no success the status says what became of the request: a body that cannot be read, for its
        encoding or its size, is empty.
        """
        sent = False

        async def watch(event: str, _info: object) -> None:
            nonlocal sent
            if event == "http11.send_request_headers.started":
                if before_sending is not None:
                    before_sending()
                sent = True

        if self._closed:
            raise NoAnswer("the provider is closed", sent=False)
        try:
            async with (
                _deadline(timeout),
                self._client.stream(
                    method,
                    url,
                    headers=dict(headers or {}),
                    content=body,
                    timeout=httpx.Timeout(None, connect=timeout * HANDSHAKE_PART),
                    extensions={"trace": watch},
                ) as response,
            ):
                self.certificate = _certificate(response) or self.certificate
                try:
                    content = await _read(response)
                except _Unreadable:
                    if response.is_success:
                        raise
                    content = b""
                return Answer(
                    status=response.status_code,
                    body=content,
                    retry_after=parse_retry_after(response.headers.get("Retry-After"), self._clock.time()),
                )
        except TimeoutError:
            raise NoAnswer(f"no complete answer within {timeout:g} s", sent=sent) from None
        except _Unreadable as error:
            raise NoAnswer(str(error), sent=True) from None
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, OSError, UnicodeError) as error:
            # The class alone: texts below may quote what the other side sent.
            raise NoAnswer(type(error).__name__, sent=sent) from None

    async def aclose(self) -> None:
        """Closes every connection. Twice is once."""
        self._closed = True
        await self._client.aclose()


@asynccontextmanager
async def _deadline(seconds: float) -> AsyncIterator[None]:
    """`asyncio.timeout`, but where the loop itself stood still (a blocking call, SIGSTOP, a suspended machine), what
    came meanwhile is read first: the answer to a refresh may lie in the socket, and its token is spent."""
    loop = asyncio.get_running_loop()
    due = loop.time() + seconds
    async with asyncio.timeout(None) as limit:

        def over() -> None:
            now = loop.time()
            limit.reschedule(now + MOMENT if now - due > MOMENT else now)

        handle = loop.call_at(due, over)
        try:
            yield
        finally:
            handle.cancel()


class _Unreadable(Exception):  # noqa: N818
    """The answer began and is refused."""


def _certificate(response: httpx.Response) -> Certificate | None:
    stream = response.extensions.get("network_stream")
    tls: ssl.SSLObject | None = stream.get_extra_info("ssl_object") if stream is not None else None
    shown = tls.getpeercert() if tls is not None else None
    if not shown:
        return None
    return Certificate(*(ssl.cert_time_to_seconds(str(shown[field])) for field in ("notBefore", "notAfter")))


async def _read(response: httpx.Response) -> bytes:
    encoding = response.headers.get("Content-Encoding", "identity")
    if encoding.strip().lower() not in ("", "identity"):
        # Not asked for; inflating a bomb would hold up the loop.
        raise _Unreadable("the answer has a content encoding")
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > MAX_BODY:
            raise _Unreadable(f"the answer is larger than {MAX_BODY} bytes")
    return bytes(body)


def parse_retry_after(value: str | None, now: float) -> float | None:
    """Seconds to wait (RFC 9110, section 10.2.3), at most `MAX_RETRY_AFTER`; None where absent, past or no sense."""
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        # More digits than any cap has; int() refuses thousands of them.
        return MAX_RETRY_AFTER if len(text) > 9 else min(float(text), MAX_RETRY_AFTER)
    try:
        seconds = parsedate_to_datetime(text).timestamp() - now
    except (ValueError, OverflowError):
        return None
    return min(seconds, MAX_RETRY_AFTER) if seconds > 0 else None


def parse_json(data: bytes | str) -> Any:
    """JSON as the rest of the program can bear it. Raises `ValueError`.

    NaN and numbers beyond a float become None, integers beyond 64 bits a float. Refused, as neither UTF-8 nor BSON can
    hold them: nesting beyond `MAX_JSON_DEPTH`, halves of surrogate pairs, names with NUL.
    """
    try:
        text = data.decode("utf-8") if isinstance(data, bytes) else data
        value = json.loads(text, parse_constant=lambda _name: None, parse_float=_finite, parse_int=_integer)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    pending = [(value, 1)]
    while pending:
        item, depth = pending.pop()
        if depth > MAX_JSON_DEPTH:
            raise ValueError("nested too deeply")
        if isinstance(item, str):
            item.encode("utf-8")
        elif isinstance(item, dict):
            if any("\0" in name for name in item):
                raise ValueError("a name with NUL")
            pending.extend((name, depth) for name in item)
            pending.extend((member, depth + 1) for member in item.values())
        elif isinstance(item, list):
            pending.extend((member, depth + 1) for member in item)
    return value


def _finite(text: str) -> float | None:
    number = float(text)
    return number if math.isfinite(number) else None


def _integer(text: str) -> int | float | None:
    # 18 digits always fit; beyond them the exact value is nobody's concern.
    return int(text) if len(text) <= 18 else _finite(text)
