"""FastMCP in a virtual environment of its own, made once in the cache folder: it brings much that we do not need."""

from __future__ import annotations

import fcntl
import subprocess
import sys
import venv
from functools import cache
from pathlib import Path

from tests.parts.require import MissingPartError, cache_folder

VERSION = "4.2.3"


@cache
def find_fastmcp() -> Path:
    """The Python of an environment with FastMCP. Raises MissingPartError where pip fails."""
    folder = cache_folder() / f"fastmcp-{VERSION}-py{sys.version_info.major}{sys.version_info.minor}"
    python = folder / "bin" / "python"
    with (folder.parent / f"{folder.name}.lock").open("w") as lock:
        # An environment cannot be made aside and moved, so other test runs wait.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "complete").exists():
            venv.create(folder, with_pip=True, clear=True)
            _install(python)
            (folder / "complete").touch()
    return python


def _install(python: Path) -> None:
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", f"fastmcp=={VERSION}"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    except subprocess.TimeoutExpired:
        raise MissingPartError("pip did not install FastMCP within 300 s") from None
    if result.returncode:
        raise MissingPartError(f"pip cannot install FastMCP\n{result.stderr[-2000:]}")
