"""The documentation does what it says: its code runs, its commands and names exist."""

from __future__ import annotations

import ast
import configparser
import importlib.util
import inspect
import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tornado_sse_auth import errors, metrics
from tornado_sse_auth.authorization_server import errors as oauth_errors
from tornado_sse_auth.errors import AuthError

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
COMMANDS = (
    'python3 -m venv .venv && .venv/bin/pip install ".[sample]" && .venv/bin/python -m sample_server',
    'python3 -m venv .venv && .venv/bin/pip install ".[test]" && .venv/bin/python -m pytest',
)
FENCE = re.compile(r"^(`{3,}|:{3,})(\S*)[^\n]*\n(.*?)^\1\s*$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """One fenced block: where it begins, its info string, its text."""

    page: Path
    line: int
    language: str
    text: str


def blocks(page: Path) -> list[Block]:
    source = page.read_text(encoding="utf-8")
    return [
        Block(page, source.count("\n", 0, match.start()) + 1, match[2], match[3]) for match in FENCE.finditer(source)
    ]


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


ALL_BLOCKS = [block for page in PAGES for block in blocks(page)]


def of(*languages: str) -> list[Block]:
    return [block for block in ALL_BLOCKS if block.language in languages]


def table_codes(page: str, heading: str = "") -> set[str]:
    """What stands as code in the first column of the tables below `heading`."""
    section = (ROOT / "docs" / "reference" / page).read_text(encoding="utf-8").partition(heading)[2]
    section = re.split(r"^## ", section, maxsplit=1, flags=re.MULTILINE)[0] if heading else section
    rows = re.findall(r"^\| (`[^|]*?) \|", section, re.MULTILINE)
    return {code for row in rows for code in re.findall(r"`([^`]+)`", row)}


def sample_options() -> set[str]:
    """The long options that `python -m sample_server --help` shows, without Tornado's own."""
    shown = subprocess.run(
        [sys.executable, "-m", "sample_server", "--help"], cwd=ROOT, capture_output=True, text=True, timeout=30
    )
    assert shown.returncode == 0, shown.stderr
    found = set(re.findall(r"^\s+(--[a-z-]+)", shown.stdout + shown.stderr, re.MULTILINE))
    return {
        name for name in found if not name.startswith(("--help", "--log-file", "--log-rotate", "--log-to", "--logging"))
    }


def test_every_block_says_what_it_is() -> None:
    known = {"python", "bash", "console", "json", "{eval-rst}", "{toctree}", "{literalinclude}"}
    assert [(name_of(b.page), b.line) for b in ALL_BLOCKS if b.language not in known] == []


@pytest.mark.parametrize("page", sorted({b.page for b in of("python")}), ids=name_of)
async def test_python_blocks_run_in_order(page: Path) -> None:
    """One namespace a page, with `await` as in the interactive interpreter; then every test that a page defines."""
    namespace: dict[str, object] = {"__name__": "documentation"}
    for block in blocks(page):
        if block.language == "python":
            source = "\n" * block.line + block.text
            code = compile(source, str(page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            result = eval(code, namespace)
            if inspect.isawaitable(result):
                await result
    for name, test in list(namespace.items()):
        if name.startswith("test_") and inspect.iscoroutinefunction(test):
            await test()


def test_the_two_commands_are_the_only_bash_and_stand_in_the_readme() -> None:
    assert {block.text.strip() for block in of("bash")} == set(COMMANDS)
    assert [block.text.strip() for block in blocks(ROOT / "README.md") if block.language == "bash"] == list(COMMANDS)


@pytest.mark.parametrize("block", of("bash", "console"), ids=lambda block: f"{name_of(block.page)}:{block.line}")
def test_commands_name_what_exists(block: Block) -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    extras = setup["options.extras_require"]
    for names in re.findall(r'"\.\[([\w,]+)\]"', block.text):
        assert set(names.split(",")) <= set(extras)
    for line in block.text.splitlines():
        for module in re.findall(r"(?<=-m )[\w.]+", line.partition("pytest ")[0]):
            assert importlib.util.find_spec(module), module
        for path in re.findall(r"\btests/[\w/.]+", line):
            assert (ROOT / path).exists(), path
        if "-m sample_server" in line:
            assert set(re.findall(r" (--[a-z-]+)", line)) <= sample_options()


def test_json_blocks_are_json() -> None:
    for block in of("json"):
        json.loads(block.text)


def test_links_between_pages_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8")):
            if not target.startswith(("https://", "mailto:")):
                assert (page.parent / target).exists(), f"{name_of(page)}: {target}"


def test_links_to_other_sites_are_whole_and_name_their_specification() -> None:
    """Whether they lead somewhere is for `sphinx-build -b linkcheck`, where there is a network."""
    for page in PAGES:
        for text, target in re.findall(r"\[([^\]]*)\]\((\w+:[^)\s]*)\)", page.read_text(encoding="utf-8")):
            url = urlsplit(target)
            assert url.scheme in ("https", "mailto"), f"{name_of(page)}: {target}"
            assert url.scheme == "mailto" or "." in (url.hostname or ""), f"{name_of(page)}: {target}"
            if specification := re.search(r"rfc-?(\d+)|(draft-[a-z-]+[a-z])", target, re.IGNORECASE):
                assert (specification[1] or specification[2]) in text, f"{name_of(page)}: {text} leads to {target}"


def test_the_options_of_the_sample_are_all_in_the_reference() -> None:
    rows = re.findall(
        r"^\| `(--[a-z-]+)` \|", (ROOT / "docs/reference/options.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert set(rows) == sample_options()


def test_the_error_codes_are_all_in_the_reference() -> None:
    raised = {
        thing.code
        for thing in (*vars(errors).values(), *vars(oauth_errors).values())
        if inspect.isclass(thing) and issubclass(thing, AuthError) and "code" in vars(thing)
    }
    page = (ROOT / "docs" / "reference" / "errors.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| .* \| \d{3}.* \| `([a-z_]+)` \|$", page, re.MULTILINE)) == raised


def test_the_metrics_are_all_in_the_reference() -> None:
    def names(table: frozenset[str]) -> set[str]:
        return {name for name in table if not name.startswith("target.missed.")}

    def families(heading: str) -> set[str]:
        return {re.sub(r"<\w+>$", "", code) for code in table_codes("metrics.md", heading)} - {"target.missed."}

    assert families("## Timers") == names(metrics.TIMERS)
    assert families("## Counters") == names(metrics.COUNTERS)
    assert families("## Gauges") == names(metrics.GAUGES)
