"""How the sample writes its logs: to standard error, as text or JSON."""

from __future__ import annotations

import logging

from tornado_sse_auth import JSONFormatter, RedactionFilter, RepeatFilter, RequestIdFilter

__all__ = ["FORMATS", "write_logs"]

FORMATS = {
    "text": logging.Formatter("%(asctime)s %(levelname)s %(name)s [%(request_id)s] %(message)s"),
    "json": JSONFormatter(),
}


def write_logs(format_name: str) -> None:
    """From INFO on; of requests that go well nobody says anything."""
    handler = logging.StreamHandler()
    handler.setFormatter(FORMATS[format_name])
    for each in (RequestIdFilter(), RepeatFilter(), RedactionFilter()):
        handler.addFilter(each)
    logging.basicConfig(handlers=[handler], level=logging.INFO, force=True)
    for noisy in ("httpx", "httpcore", "tornado.access"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
