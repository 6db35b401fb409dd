"""The wheel and the sdist are complete: each installs into an empty environment, imports and finds its files."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = ("setup.cfg", "setup.py", "pyproject.toml", "MANIFEST.in", "LICENSE", "*.md")
FOLDERS = ("tornado_sse_auth", "sample_server", "docs", "tests")


def run(*command: str | Path, cwd: Path) -> str:
    """Standard output; the test fails with all output where the command does."""
    done = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and the wheel that was built from it."""
    source = tmp_path_factory.mktemp("source")
    for pattern in SOURCES:
        for path in ROOT.glob(pattern):
            shutil.copy(path, source)
    leftovers = shutil.ignore_patterns("__pycache__", "_build", "node_modules", "*.egg-info")
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, source / folder, ignore=leftovers)
    run(sys.executable, "-m", "build", "--outdir", source / "dist", cwd=source)
    return source / "dist"


def files(artifact: Path) -> set[str]:
    if artifact.suffix == ".whl":
        return set(zipfile.ZipFile(artifact).namelist())
    with tarfile.open(artifact) as archive:
        return {name.partition("/")[2] for name in archive.getnames()}


@pytest.mark.parametrize("pattern", ["*.whl", "*.tar.gz"])
def test_every_file_of_the_packages_is_packed(artifacts: Path, pattern: str) -> None:
    (artifact,) = artifacts.glob(pattern)
    expected = {
        str(path.relative_to(ROOT))
        for package in ("tornado_sse_auth", "sample_server")
        for path in (ROOT / package).rglob("*")
        if path.is_file() and not any(part.startswith((".", "__pycache__")) for part in path.relative_to(ROOT).parts)
    }
    packed = files(artifact)
    assert expected <= packed
    assert not any(name.startswith("tests/") for name in packed) or pattern == "*.tar.gz"


@pytest.mark.parametrize("pattern", ["*.whl", "*.tar.gz"])
def test_it_installs_and_imports_on_its_own(artifacts: Path, tmp_path: Path, pattern: str) -> None:
    (artifact,) = artifacts.glob(pattern)
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", artifact, cwd=tmp_path)
    run(python, "-m", "pip", "check", cwd=tmp_path)
    where = run(
        python,
        "-c",
        "import tornado_sse_auth as t; print(t.__file__); [getattr(t, n) for n in t.__all__]",
        cwd=tmp_path,
    )
    assert Path(where.strip()).is_relative_to(tmp_path / "venv")
    if pattern == "*.whl":
        with_sample = f"{artifact}[sample]"
        run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", with_sample, cwd=tmp_path)
        assert "--port" in run(python, "-m", "sample_server", "--help", cwd=tmp_path)
