"""What the tool says, asks and shows: results on standard output, everything else on standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TextIO

from ..errors import ConfigurationError

__all__ = ["Declined", "Terminal", "time_text"]


class Declined(Exception):  # noqa: N818 - nobody's error
    """The person at the terminal said no."""


def time_text(seconds: object) -> str | None:
    """Epoch seconds as ISO 8601, or None where they are none."""
    if not isinstance(seconds, int | float) or isinstance(seconds, bool):
        return None
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
    except (ValueError, OverflowError, OSError):
        return None


class Terminal:
    """`as_json`: one JSON document instead of text for people. `assume_yes`: nobody is asked."""

    def __init__(
        self,
        *,
        as_json: bool,
        assume_yes: bool,
        output: TextIO | None = None,
        errors: TextIO | None = None,
        answers: TextIO | None = None,
    ) -> None:
        self.as_json = as_json
        self._assume_yes = assume_yes
        self._output = sys.stdout if output is None else output
        self._errors = sys.stderr if errors is None else errors
        self._answers = sys.stdin if answers is None else answers
        self._progress = ""

    def document(self, document: Mapping[str, Any], *lines: str) -> None:
        """The result: `document` for programs, `lines` for people."""
        text = json.dumps(document, ensure_ascii=False, indent=2) if self.as_json else "\n".join(map(_printable, lines))
        print(text, file=self._output)

    def table(self, head: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
        """The lines of a table."""
        cells = [list(head), *(["" if cell is None else _printable(str(cell)) for cell in row] for row in rows)]
        widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
        return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]

    def tell(self, text: str) -> None:
        """Something to know, beside the result."""
        self._clear()
        print(_printable(text), file=self._errors, flush=True)

    def confirm(self, question: str) -> None:
        """Raises `Declined` unless the answer is yes, `ConfigurationError` where nobody can be asked."""
        if self._assume_yes:
            return
        if not self._answers.isatty():
            raise ConfigurationError("nobody can be asked here: add --yes if you mean it")
        print(f"{_printable(question)} [y/N] ", end="", file=self._errors, flush=True)
        if self._answers.readline().strip().lower() not in ("y", "yes"):
            raise Declined

    def progress(self, text: str) -> None:
        """How far it is: one line that is written over, on a terminal; nothing elsewhere."""
        if self._errors.isatty():
            self._progress = text
            print(f"\r\033[K{text}", end="", file=self._errors, flush=True)

    def close(self) -> None:
        """Leave the cursor at the beginning of a line."""
        self._clear()

    def _clear(self) -> None:
        if self._progress:
            self._progress = ""
            print("\r\033[K", end="", file=self._errors, flush=True)


def _printable(text: str) -> str:
    """Without what would move the cursor or hide text: names in a database come from outside."""
    return "".join(char if char.isprintable() or char == "\n" else "\ufffd" for char in text)
