"""What the run is at: one line on a terminal, nothing in a pipe."""

from __future__ import annotations

import sys

__all__ = ["progress"]

_ERASE = "\r\x1b[2K"


def progress(text: str = "") -> None:
    """Show `text` in place of what was shown before; without one, clear the line."""
    if sys.stderr.isatty():
        sys.stderr.write(_ERASE + text)
        sys.stderr.flush()
