"""The files of docs/howto/files are ones that a deployment could take as they stand."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.parts.require import MissingPartError, require
from tests.test_docs import ROOT, sample_options

FILES = ROOT / "docs" / "howto" / "files"
PAGE = ROOT / "docs" / "howto" / "deploy.md"


def _systemd_analyze() -> str:
    found = shutil.which("systemd-analyze")
    if found is None:
        raise MissingPartError("no systemd-analyze: apt-get install systemd")
    return found


@pytest.mark.real("systemd")
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    """Every directive is known to systemd; only what is not installed here is replaced."""
    analyze = require(_systemd_analyze)
    text = (FILES / "sse-sample.service").read_text()
    python = re.search(r"^ExecStart=(\S+)", text, re.MULTILINE)
    assert python is not None
    unit = tmp_path / "sse-sample.service"
    unit.write_text(text.replace(python[1], sys.executable).replace("/opt/sse-sample", str(tmp_path)))
    checked = subprocess.run(
        [analyze, "verify", "--man=no", str(unit)], capture_output=True, text=True, timeout=60, check=False
    )
    complaints = [line for line in checked.stderr.splitlines() if unit.name in line]
    assert (checked.returncode, complaints) == (0, []), checked.stderr


def test_the_files_name_options_that_exist() -> None:
    known = sample_options()
    variables = {f"SAMPLE_{name[2:].upper().replace('-', '_')}" for name in known}
    for file in (*FILES.iterdir(), PAGE):
        text = file.read_text()
        assert set(re.findall(r"\bSAMPLE_[A-Z_]+", text)) <= variables, file.name
        commands = [line for line in text.splitlines() if "-m sample_server" in line]
        assert {option for line in commands for option in re.findall(r" (--[a-z-]+)", line)} <= known, file.name


def test_the_unit_outlasts_the_drain_time() -> None:
    """Who is killed before `drain_timeout` and a refresh under way are over loses what the refresh gave."""
    unit = (FILES / "sse-sample.service").read_text()
    stop = re.search(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)
    assert stop is not None
    assert int(stop[1]) >= 15
