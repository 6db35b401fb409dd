"""Imports between the modules of tornado_sse_auth point only to lower layers, and inside a folder never in a ring."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "tornado_sse_auth"

# Lowest first. Modules of one row may not import one another, except inside one folder.
LAYERS: tuple[frozenset[str], ...] = tuple(
    frozenset(row.split())
    for row in (
        "errors identity clock",
        "deadlines listeners periodic",
        "options",
        "sealing metrics audit logs",
        "observations",
        "mongodb",
        "stores events",
        "oauth",
        "sessions",
        "streams refresh",
        "health",
        "web",
        "middleware",
        "authorization_server mcp operator",
    )
)
DATA_ONLY = LAYERS[0]  # may know one another: an error names an identity, an identity raises an error
EXEMPT = frozenset({"__init__", "__main__", "testing"})


def layer_of(name: str) -> int | None:
    return next((i for i, row in enumerate(LAYERS) if name in row), None)


def imported_modules(path: Path, root: Path) -> Iterator[tuple[int, tuple[str, ...]]]:
    """(line, module path below the package) of each import of the package, wherever in the file it stands."""
    package = (root.name, *path.relative_to(root).parent.parts)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            targets = [tuple(alias.name.split(".")) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = base + tuple(node.module.split(".") if node.module else ())
            targets = [(*module, alias.name) for alias in node.names]
        else:
            continue
        yield from ((node.lineno, target[1:]) for target in targets if target[0] == root.name)


def violations(root: Path) -> list[str]:
    """One line for each import that the layers forbid, and for each module that no layer has."""
    found = []
    for path in sorted(root.rglob("*.py")):
        where = path.relative_to(root)
        part = where.parts[0].removesuffix(".py")
        if part in EXEMPT or where.stem in EXEMPT:
            continue
        own = layer_of(part)
        if own is None:
            found.append(f"{where}: {part} is in no layer")
            continue
        for line, target in imported_modules(path, root):
            other = target[0] if target else "__init__"
            theirs = layer_of(other)
            allowed = other == part or (theirs is not None and theirs < own) or (part in DATA_ONLY and theirs == own)
            if not allowed:
                found.append(f"{where}:{line}: {part} imports {other}")
    return found


def ring(root: Path) -> list[str]:
    """Modules that import one another, each the next one, be it for a type checker alone; none where there are none."""
    modules = {path.relative_to(root).with_suffix("").parts: path for path in root.rglob("*.py")}
    graph = {}
    for module, path in modules.items():
        if path.stem in EXEMPT or module[0] in DATA_ONLY:
            continue
        graph[".".join(module)] = {
            ".".join(target[:length])
            for _, target in imported_modules(path, root)
            for length in (len(target), len(target) - 1)
            if target[:length] in modules and target[:length] != module and target[0] == module[0]
        }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_imports_follow_the_layers() -> None:
    assert violations(PACKAGE) == []
    assert ring(PACKAGE) == []


def test_a_ring_is_seen(tmp_path: Path) -> None:
    sources = {
        "a.py": "if TYPE_CHECKING:\n    from .b import B",
        "b.py": "from ..errors import AuthError\nfrom .c import C",
        "c.py": "from . import d",
        "d.py": "",
    }
    folder = tmp_path / "pkg" / "streams"
    folder.mkdir(parents=True)
    for name, source in sources.items():
        (folder / name).write_text(source)
    assert ring(tmp_path / "pkg") == []
    (folder / "d.py").write_text("def f():\n    from .a import A")
    assert {module.rpartition(".")[2] for module in ring(tmp_path / "pkg")} == {"a", "b", "c", "d"}


def test_every_folder_initializer_only_re_exports() -> None:
    """A folder's `__init__.py` is exempt from the layers, so it holds nothing but a docstring, imports, `__all__`."""
    for path in PACKAGE.rglob("__init__.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            plain = isinstance(node, ast.Import | ast.ImportFrom)
            text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            names = isinstance(node, ast.Assign) and [ast.unparse(t) for t in node.targets] in (
                ["__all__"],
                ["__version__"],
            )
            assert plain or text or names, f"{path}:{node.lineno}"


@pytest.mark.parametrize(
    ("module", "source", "forbidden"),
    [
        ("stores/mongo.py", "from ..identity import Session", False),
        ("stores/mongo.py", "from .base import SessionStore", False),
        ("stores/mongo.py", "from ..events.base import EventLog", True),
        ("stores/mongo.py", "from .. import sessions", True),
        ("stores/mongo.py", "from .. import SessionManager", True),
        ("stores/mongo.py", "import pkg.sessions.manager", True),
        ("stores/mongo.py", "import pkg", True),
        ("stores/mongo.py", "def f():\n    from pkg.streams import stream", True),
        ("stores/mongo.py", "if TYPE_CHECKING:\n    from ..web.mixin import SSEAuthMixin", True),
        ("stores/mongo.py", "import json, motor, packaging", False),
        ("refresh/manager.py", "from ..streams.registry import StreamRegistry", True),
        ("refresh/manager.py", "from ..sessions import manager", False),
        ("web/mixin.py", "if TYPE_CHECKING:\n    from ..middleware import SSEAuthenticationMiddleware", True),
        ("identity.py", "from .errors import AuthError", False),
        ("identity.py", "from .options import Options", True),
        ("options.py", "from . import errors", False),
        ("helpers.py", "", True),
        ("testing.py", "from .middleware import SSEAuthenticationMiddleware", False),
        ("web/__init__.py", "from ..middleware import SSEAuthenticationMiddleware", False),
    ],
)
def test_a_violation_is_seen(tmp_path: Path, module: str, source: str, forbidden: bool) -> None:
    path = tmp_path / "pkg" / module
    path.parent.mkdir(parents=True)
    path.write_text(source)
    assert bool(violations(tmp_path / "pkg")) is forbidden
