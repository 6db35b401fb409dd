"""The wheel and the sdist are complete: each installs into an empty environment, imports and finds its files; and an
application that knows only the README and the wheel gets what the README promises."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from tests.parts import provider as oidc
from tests.parts.process import ServerProcess, free_port
from tests.parts.sse_client import SSEClient

ROOT = Path(__file__).parent.parent
SOURCES = ("setup.cfg", "setup.py", "pyproject.toml", "MANIFEST.in", "LICENSE", "*.md")
FOLDERS = ("tornado_sse_auth", "sample_server", "docs", "tests")
PATTERNS = ("*.whl", "*.tar.gz")
APPLICATION = ROOT / "tests" / "outside" / "application.py"


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


@pytest.mark.parametrize("pattern", PATTERNS)
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


@pytest.fixture(scope="module")
def environments(artifacts: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The interpreters of two virtual environments: of the wheel alone, and of the sdist with all of the sample."""
    found = {}
    for pattern, extra in (("*.whl", ""), ("*.tar.gz", "[sample]")):
        (artifact,) = artifacts.glob(pattern)
        folder = tmp_path_factory.mktemp("environment")
        venv.create(folder / "venv", with_pip=True)
        python = found[pattern] = folder / "venv" / "bin" / "python"
        run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", f"{artifact}{extra}", cwd=folder)
    return found


@pytest.mark.parametrize("pattern", PATTERNS)
def test_it_installs_and_imports_on_its_own(environments: dict[str, Path], tmp_path: Path, pattern: str) -> None:
    python = environments[pattern]
    run(python, "-m", "pip", "check", cwd=tmp_path)
    where = run(
        python,
        "-c",
        "import tornado_sse_auth as t; print(t.__file__); [getattr(t, n) for n in t.__all__]",
        cwd=tmp_path,
    )
    assert Path(where.strip()).is_relative_to(python.parents[1])
    if pattern == "*.tar.gz":
        assert "--port" in run(python, "-m", "sample_server", "--help", cwd=tmp_path)


# -- an application outside the repository -----------------------------------------------------------------------------


@pytest.fixture
async def outside(
    environments: dict[str, Path], provider: oidc.Provider, tmp_path: Path
) -> AsyncIterator[ServerProcess]:
    """It runs where nothing of the repository can be imported; its name is its origin."""
    shutil.copy(APPLICATION, tmp_path)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    arguments = [str(port), provider.issuer, provider.client_id, provider.client_secret]
    command = [environments["*.whl"], "-I", tmp_path / APPLICATION.name, *arguments]
    await provider.add_redirect_uri(f"{url}/auth/callback")
    with ServerProcess(url, command, ready=lambda server: server.wait_for_port(port), folder=tmp_path) as server:
        yield server
        assert server.stop() == 0, server.output
        assert "Traceback" not in server.output


async def signed_in(url: str, account: str) -> httpx.AsyncClient:
    done = await oidc.sign_in(f"{url}/auth/login", account=account)
    assert done.response.status_code == 302, done.response.text
    headers = {"Origin": url, "Accept": "application/json"}
    return httpx.AsyncClient(base_url=url, cookies=done.cookies, headers=headers, trust_env=False, timeout=10)


async def test_an_application_outside_gets_what_the_readme_promises(
    outside: ServerProcess, provider: oidc.Provider
) -> None:
    """The user context, the three kinds of 403, the upstream token, and replay without gap or double."""
    url = outside.name
    permissions = {"permissions": ["trade"], "subscription_level": "pro", "name": "Outside Pro"}
    await provider.change_account("outside-pro", claims=permissions)
    nothing = {"permissions": [], "subscription_level": "free", "name": "Outside Free"}
    await provider.change_account("outside-free", claims=nothing, scope="openid offline_access profile content:read")
    async with await signed_in(url, "outside-pro") as pro, await signed_in(url, "outside-free") as free:
        me = (await pro.get("/me")).json()
        assert me["user_id"] == f"{provider.issuer}|outside-pro"
        assert {"content:read", "events:write"} <= set(me["scopes"])
        assert (me["permissions"], me["subscription"], me["name"]) == (["trade"], "pro", "Outside Pro")
        assert [(await pro.get(path)).status_code for path in ("/trade", "/reports")] == [200, 200]
        refused = [await free.post("/prices", content=b"1"), await free.get("/trade"), await free.get("/reports")]
        assert [(answer.status_code, answer.json()["error"]) for answer in refused] == [
            (403, "insufficient_scope"),
            (403, "insufficient_permission"),
            (403, "insufficient_subscription"),
        ]
        assert (await pro.get("/profile")).json()["sub"] == "outside-pro"
        async with httpx.AsyncClient(base_url=url, trust_env=False) as stranger:
            answer = await stranger.get("/me")
            assert (answer.status_code, answer.json()["authorization_url"]) == (401, f"{url}/auth/login")
        seen: list[int] = []
        last: str | None = None
        for number in range(5):
            async with SSEClient(f"{url}/prices", cookies=pro.cookies, last_event_id=last) as stream:
                await stream.next("open")
                await pro.post("/prices", content=str(2 * number).encode())
                while not seen or seen[-1] != 2 * number:
                    event = await stream.next("price")
                    seen.append(event.json()["price"])
                last = event.id
            await pro.post("/prices", content=str(2 * number + 1).encode())  # nobody listens
        assert seen == list(range(9))
