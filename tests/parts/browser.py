"""Headless Chromium, driven by a few lines of JavaScript (playwright-core).

seen = await browser.run("await page.goto(params.url); return {title: await page.title()}", url=url)
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.parts.node import SCRIPTS, find_node, placed
from tests.parts.require import MissingPartError


def find_chromium() -> Path:
    """Chromium or Chrome on the PATH. Raises MissingPartError."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if found := shutil.which(name):
            return Path(found)
    raise MissingPartError("no browser: apt-get install chromium")


def check_available() -> None:
    """Raises MissingPartError where Chromium, Node.js or the npm packages are not to be had."""
    find_chromium()
    placed(SCRIPTS / "browser.mjs")


class Browser:
    """Each `run` is a browser of its own with an empty profile."""

    async def run(self, script: str | Path, *, timeout: float = 60.0, **params: Any) -> dict[str, Any]:
        """Run the body of an async function of `page`, `context` (Playwright's) and `params`; gives what it returns.

        A `Path` is read from that file; paths among the parameters, say for a screenshot, become strings. Raises
        AssertionError, with the page's console, where the script throws or has not ended after `timeout` seconds.
        """
        text = await asyncio.to_thread(script.read_text) if isinstance(script, Path) else script
        with tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as profile:
            options = {
                "executable": str(find_chromium()),
                "profile": profile,
                "script": text,
                "params": params,
                "timeoutMs": int(timeout * 1000),
            }
            command: list[Path | str] = [find_node(), placed(SCRIPTS / "browser.mjs"), json.dumps(options, default=str)]
            status, output = await _run(command, timeout)
        *console, last = output.rstrip("\n").split("\n")
        if status != 0 or not last.startswith("result "):
            raise AssertionError(f"the browser script ended with status {status}\n{output[-6000:]}")
        result = json.loads(last.removeprefix("result "))
        assert isinstance(result, dict), f"a browser script returns an object, not {result!r}"
        return {**result, "console": console}


async def _run(command: list[Path | str], timeout: float) -> tuple[int | None, str]:
    child = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        process_group=0,
    )
    assert child.stdout is not None
    output = bytearray()
    try:
        async with asyncio.timeout(timeout + 5):
            while chunk := await child.stdout.read(65_536):
                output += chunk
            await child.wait()
    except TimeoutError:
        output += f"\nno end after {timeout} s".encode()
    finally:
        # Chromium's own processes are in the group too, and none may outlive the script.
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        await child.wait()
    return child.returncode, output.decode("utf-8", "replace")
