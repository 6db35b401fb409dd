"""Tornado's own log quotes a header that it cannot read; between its quotes may stand somebody's cookie or bearer."""

from __future__ import annotations

import logging

__all__ = ["MalformedRequestFilter"]

_MALFORMED = "Malformed HTTP message from %s: %s"


class MalformedRequestFilter(logging.Filter):
    """For the logger `tornado.general`: says which rule a malformed request broke, and not with what."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Every record passes; the text of this one ends before the quotation."""
        if record.msg == _MALFORMED and isinstance(record.args, tuple) and len(record.args) == 2:
            peer, error = record.args
            record.args = (peer, str(error).partition("'")[0].partition('"')[0].rstrip(" :b"))
        return True
