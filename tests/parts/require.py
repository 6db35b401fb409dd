"""Real parts that this machine lacks: skipped for a person, a failure in CI."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import TypeVar

import pytest

T = TypeVar("T")
SKIPPED = "skipped real part"


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


class RealPartsReport:
    """A pytest plugin: marks each test that uses a real part, and fails a CI run in which one was skipped."""

    def __init__(self, parts: Mapping[str, str]) -> None:
        """`parts` gives the real part behind each fixture."""
        self._parts = parts
        self._skipped: dict[str, str] = {}

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Every test with a fixture of a real part carries the marker `real`, so that nobody can forget it."""
        for item in items:
            for name in getattr(item, "fixturenames", ()):
                if part := self._parts.get(name):
                    item.add_marker(pytest.mark.real(part))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Write what was skipped into the report, which reaches the process that sums up; an expected failure counts
        as run."""
        report = yield
        if report.skipped and not hasattr(report, "wasxfail") and item.get_closest_marker("real"):
            parts = {str(marker.args[0]) for marker in item.iter_markers("real")}
            report.user_properties.append((SKIPPED, ", ".join(sorted(parts))))
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note what was skipped, in this process or another."""
        for name, part in report.user_properties:
            if name == SKIPPED:
                self._skipped[report.nodeid] = str(part)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """In CI a skipped real part is a failed run."""
        if in_ci() and self._skipped and session.exitstatus in {pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED}:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say which real parts were not there."""
        if not self._skipped:
            return
        terminalreporter.section("real parts skipped" + (": a failure in CI" if in_ci() else ""), red=in_ci())
        for nodeid, part in self._skipped.items():
            terminalreporter.line(f"{part}: {nodeid}")
