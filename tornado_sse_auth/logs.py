"""For the handlers of an application's logging: lines as JSON, no secret in any of them, no flood of the same."""

from __future__ import annotations

import json
import logging
import re
from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, datetime

from .clock import Clock, SystemClock

__all__ = ["JSONFormatter", "RedactionFilter", "RepeatFilter", "redacted"]

AUDIT = "tornado_sse_auth.audit"
REDACTED = "[redacted]"

_NAMES = (
    "access_token|refresh_token|id_token|logout_token|client_secret|code_verifier|password|"
    r"__Host-session|sse_auth_\d+"
)
_VALUE = r"""[^\s"'&;,)\]}]{8,}"""
# Second line of defence: secrets travel as `Secret`, whose text is hidden. These are for what others write.
_PATTERNS = (
    (re.compile(r"\b(Bearer|Basic)\s+[\w.~+/=-]{8,}", re.IGNORECASE), rf"\1 {REDACTED}"),
    (re.compile(rf"""(["']?\b(?:{_NAMES})["']?\s*[:=]\s*["']?){_VALUE}""", re.IGNORECASE), rf"\1{REDACTED}"),
    (re.compile(rf"([?&](?:code|state|reauth)=){_VALUE}"), rf"\1{REDACTED}"),
    (re.compile(r"\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*"), REDACTED),
    (re.compile(r"(\b[a-z][a-z0-9+.-]*://)[^\s/@:]*:[^\s/@]+@", re.IGNORECASE), rf"\1{REDACTED}@"),
)


def redacted(text: str) -> str:
    """The text without what looks like a bearer, a JWT, a named secret, or the credentials of a URI."""
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


class RedactionFilter(logging.Filter):
    """Takes secrets out of a record's message and traceback. For a handler, which hears every logger, and its last
    filter: others may look at the statement that the message is made of."""

    _formatter = logging.Formatter()

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = redacted(record.getMessage()), ()
        if record.exc_info and not record.exc_text:
            record.exc_text = self._formatter.formatException(record.exc_info)
        if record.exc_text:
            record.exc_text = redacted(record.exc_text)
        return True


class JSONFormatter(logging.Formatter):
    """One JSON object a line: `time`, `level`, `logger`, `request_id` where there is one, `message`, and `exception`
    with its traceback. A line of the audit log has its own fields instead of `message`."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
        }
        request_id = getattr(record, "request_id", "-")
        if request_id != "-":
            line["request_id"] = request_id
        message = record.getMessage()
        audited = _audited(message) if record.name == AUDIT else None
        if audited is None:
            line["message"] = message
        else:
            line = {**audited, "level": line["level"], "logger": line["logger"]}
        if record.exc_info and not record.exc_text:
            record.exc_text = self.formatException(record.exc_info)
        if record.exc_text:
            line["exception"] = record.exc_text
        return json.dumps(line, ensure_ascii=True, separators=(",", ":"), default=str)


def _audited(message: str) -> dict[str, object] | None:
    """The fields of an audit line, which is JSON unless a redaction cut through it."""
    try:
        line = json.loads(message)
    except ValueError:
        return None
    return line if isinstance(line, dict) else None


@dataclass(slots=True)
class _Repeats:
    """A statement's lines in the window that began at `since` (monotonic)."""

    since: float
    passed: int = 0
    held: int = 0


class RepeatFilter(logging.Filter):
    """Lets at most `burst` lines of one log statement pass in `window` seconds, whatever their arguments, and then says
    how often it was repeated: with the next line of anybody's after the window. The audit log is never held back."""

    STATEMENTS = 1000  # remembered; the one that was silent for longest is forgotten

    def __init__(self, *, burst: int = 10, window: float = 10.0, clock: Clock | None = None) -> None:
        super().__init__()
        self._burst = burst
        self._window = window
        self._clock = clock or SystemClock()
        self._repeats: OrderedDict[tuple[str, int, str], _Repeats] = OrderedDict()

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name == AUDIT or hasattr(record, "repeated"):
            return True
        now = self._clock.monotonic()
        self._tell_what_is_over(now)
        key = (record.name, record.levelno, str(record.msg))
        repeats = self._repeats.setdefault(key, _Repeats(now))
        self._repeats.move_to_end(key)
        if len(self._repeats) > self.STATEMENTS:
            self._repeats.popitem(last=False)
        if repeats.passed < self._burst:
            repeats.passed += 1
            return True
        repeats.held += 1
        return False

    def _tell_what_is_over(self, now: float) -> None:
        over = [key for key, repeats in self._repeats.items() if now - repeats.since >= self._window]
        for key in over:
            repeats = self._repeats.pop(key)
            if repeats.held:
                logger, level, statement = key
                logging.getLogger(logger).log(
                    level, "repeated %d times: %s", repeats.held, statement, extra={"repeated": repeats.held}
                )
