"""StatsD, carbon and graphite-web, the real ones: `with graphite.running() as server: ... server.statsd_port ...`.

graphite-web needs an old Django, so Python packages go into an environment of their own, made once in the cache folder.
"""

from __future__ import annotations

import ctypes.util
import fcntl
import hashlib
import json
import subprocess
import sys
import tempfile
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tests.parts.node import find_node, find_packages
from tests.parts.process import ServerProcess, free_port
from tests.parts.require import MissingPartError, cache_folder

PACKAGES = (
    "carbon==1.1.10",
    "whisper==1.1.10",
    "graphite-web==1.1.10",
    "gunicorn==23.0.0",
    "whitenoise==5.3.0",
    "setuptools<81",
)
# One second's resolution for the tests; carbon's own default keeps a point a minute.
SCHEMAS = "[all]\npattern = .*\nretentions = 1s:1h\n"
AGGREGATION = "[all]\npattern = .*\nxFilesFactor = 0\naggregationMethod = average\n"
# StatsD 0.9.0 uses `util.log`, which Node 23 has taken away.
SHIM = "require('util').log ??= (...words) => console.log(...words);\n"


@cache
def find_environment() -> Path:
    """The environment with PACKAGES. Raises MissingPartError where pip fails or libcairo is missing."""
    if ctypes.util.find_library("cairo") is None:
        raise MissingPartError("no libcairo, which graphite-web draws with: apt-get install libcairo2")
    digest = hashlib.sha256(" ".join((sys.version, *PACKAGES)).encode()).hexdigest()[:16]
    folder = cache_folder() / f"graphite-{digest}"
    done = folder / "complete"
    # Scripts in an environment name their interpreter, so it cannot be made aside and renamed.
    with (folder.parent / f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            _make(folder)
            done.touch()
    return folder


def _make(folder: Path) -> None:
    commands = (
        [sys.executable, "-m", "venv", "--clear", str(folder)],
        [str(folder / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check", *PACKAGES],
    )
    for command in commands:
        result = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
        if result.returncode:
            raise MissingPartError(f"no Graphite: is the package index reachable?\n{result.stderr[-2000:]}")


def check_available() -> None:
    """Raises MissingPartError where `running()` could not start."""
    find_environment()
    find_packages()


@dataclass(frozen=True)
class Graphite:
    """What runs: StatsD takes packets at `statsd_port`, graphite-web answers at `url`."""

    statsd_port: int
    url: str

    def render(self, target: str, *, seconds: int = 600) -> list[dict[str, Any]]:
        """The series of a target: `{"target", "datapoints": [[value or None, time], ...]}`."""
        query = urllib.parse.urlencode({"target": target, "from": f"-{seconds}s", "format": "json"})
        found: list[dict[str, Any]] = json.loads(self.get(f"/render?{query}"))
        return found

    def names(self, pattern: str) -> set[str]:
        """The metrics that match."""
        query = urllib.parse.urlencode({"query": pattern})
        return set(json.loads(self.get(f"/metrics/expand?{query}"))["results"])

    def get(self, path: str) -> bytes:
        """The body of a page. Raises `urllib.error.HTTPError`."""
        with urllib.request.urlopen(f"{self.url}{path}", timeout=30) as answer:
            body: bytes = answer.read()
            return body

    def post(self, path: str, **fields: str) -> bytes:
        """The body of the answer to a form."""
        data = urllib.parse.urlencode(fields).encode()
        with urllib.request.urlopen(f"{self.url}{path}", data=data, timeout=30) as answer:
            body: bytes = answer.read()
            return body


@contextmanager
def running() -> Iterator[Graphite]:
    """All three, which know one another."""
    environment = find_environment()
    line, pickle, query = free_port(), free_port(), free_port()
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="graphite-")))
        for folder in ("conf", "storage/whisper", "storage/log", "static"):
            (root / folder).mkdir(parents=True)
        (root / "conf" / "carbon.conf").write_text(_carbon_conf(root, line, pickle, query))
        (root / "conf" / "storage-schemas.conf").write_text(SCHEMAS)
        (root / "conf" / "storage-aggregation.conf").write_text(AGGREGATION)
        (root / "graphite_test_settings.py").write_text(_settings(root, environment, query))
        stack.enter_context(_carbon(environment, root, line))
        statsd_port = free_port()
        stack.enter_context(_statsd(root, statsd_port, line))
        web_port = free_port()
        stack.enter_context(_web(environment, root, web_port))
        yield Graphite(statsd_port, f"http://127.0.0.1:{web_port}")


def _carbon(environment: Path, root: Path, line: int) -> ServerProcess:
    # carbon asks for the oldest twistd that it knows of, and for a log folder of its own
    command: list[str | Path] = [environment / "bin" / "python", environment / "bin" / "carbon-cache.py"]
    command += [f"--config={root / 'conf' / 'carbon.conf'}", "--nodaemon", "--debug", "start"]
    return ServerProcess(
        "carbon",
        command,
        ready=lambda server: server.wait_for_port(line, 60),
        environment={"GRAPHITE_ROOT": str(root)},
        folder=root,
    )


def _statsd(root: Path, port: int, carbon: int) -> ServerProcess:
    management = free_port()
    (root / "shim.cjs").write_text(SHIM)
    configuration = {
        "address": "127.0.0.1",
        "port": port,
        "mgmt_address": "127.0.0.1",
        "mgmt_port": management,
        "flushInterval": 1000,
        "percentThreshold": [50, 95, 99],
        "graphiteHost": "127.0.0.1",
        "graphitePort": carbon,
        "backends": ["./backends/graphite"],
        "graphite": {"legacyNamespace": False},
    }
    (root / "statsd.js").write_text(json.dumps(configuration))
    package = find_packages() / "node_modules" / "statsd"
    return ServerProcess(
        "statsd",
        [find_node(), "-r", root / "shim.cjs", package / "stats.js", root / "statsd.js"],
        ready=lambda server: server.wait_for_port(management, 60),
        folder=package,
    )


def _web(environment: Path, root: Path, port: int) -> ServerProcess:
    settings = {
        "PYTHONPATH": str(root),
        "DJANGO_SETTINGS_MODULE": "graphite_test_settings",
        "GRAPHITE_ROOT": str(root),
        "PYTHONWARNINGS": "ignore",
    }
    admin = environment / "bin" / "django-admin"
    for words in (("migrate", "--run-syncdb", "--verbosity=0"), ("collectstatic", "--noinput", "--verbosity=0")):
        made = subprocess.run(
            [admin, *words], env={**settings, "PATH": "/usr/bin:/bin"}, capture_output=True, text=True, timeout=120
        )
        if made.returncode:
            raise AssertionError(f"graphite-web: {' '.join(words)}\n{made.stderr[-4000:]}")
    command = [environment / "bin" / "gunicorn", "--threads=4", f"--bind=127.0.0.1:{port}", "graphite.wsgi:application"]
    return ServerProcess(
        "graphite-web",
        command,
        ready=lambda server: server.wait_for_port(port, 60),
        environment=settings,
        folder=root,
    )


def _carbon_conf(root: Path, line: int, pickle: int, query: int) -> str:
    values = {
        "STORAGE_DIR": root / "storage",
        "LOCAL_DATA_DIR": root / "storage" / "whisper",
        "CONF_DIR": root / "conf",
        "LOG_DIR": root / "storage" / "log",
        "PID_DIR": root / "storage",
        "ENABLE_LOGROTATION": False,
        "USER": "",
        "MAX_CACHE_SIZE": "inf",
        "MAX_UPDATES_PER_SECOND": "inf",
        "MAX_CREATES_PER_MINUTE": "inf",
        "LINE_RECEIVER_INTERFACE": "127.0.0.1",
        "LINE_RECEIVER_PORT": line,
        "PICKLE_RECEIVER_INTERFACE": "127.0.0.1",
        "PICKLE_RECEIVER_PORT": pickle,
        "CACHE_QUERY_INTERFACE": "127.0.0.1",
        "CACHE_QUERY_PORT": query,
    }
    return "\n".join(["[cache]", *(f"{name} = {value}" for name, value in values.items())]) + "\n"


def _settings(root: Path, environment: Path, query: int) -> str:
    values = {
        "SECRET_KEY": "only for tests, only on loopback",
        "DEBUG": False,
        "ALLOWED_HOSTS": ["127.0.0.1"],
        "GRAPHITE_ROOT": str(root),
        "STORAGE_DIR": str(root / "storage"),
        "CONF_DIR": str(root / "conf"),
        "WHISPER_DIR": str(root / "storage" / "whisper"),
        "STANDARD_DIRS": [str(root / "storage" / "whisper")],
        "LOG_DIR": str(root / "storage" / "log"),
        "INDEX_FILE": str(root / "storage" / "index"),
        "CARBONLINK_HOSTS": [f"127.0.0.1:{query}"],
        "DATABASES": {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": str(root / "storage" / "web.db")}},
        "STATICFILES_DIRS": [str(environment / "webapp" / "content")],
        "STATIC_ROOT": str(root / "static"),
    }
    lines = [f"{name} = {value!r}" for name, value in values.items()]
    return "\n".join(["from graphite.settings import *", *lines]) + "\n"
