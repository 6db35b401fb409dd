"""Real parts that this machine lacks: skipped for a person, a failure in CI."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

T = TypeVar("T")


class MissingPartError(Exception):
    """A real part is not installed; the text says what to install."""


def in_ci() -> bool:
    """Whether a missing part is a failure (environment CI set to anything but the empty string, 0 or false)."""
    return os.environ.get("CI", "").lower() not in {"", "0", "false"}


def require(find: Callable[[], T]) -> T:
    """What `find` finds. Where it raises MissingPartError the test is skipped with that text, or fails in CI."""
    try:
        return find()
    except MissingPartError as missing:
        reason = str(missing)
    if in_ci():
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def cache_folder() -> Path:
    """Where fetched parts are kept between runs: `$XDG_CACHE_HOME` or `~/.cache`, then `tornado-sse-auth-tests`."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base) / "tornado-sse-auth-tests"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
