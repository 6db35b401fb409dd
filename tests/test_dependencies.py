"""Dependencies: few, each with a reason in the reference, none below its last known vulnerability."""

from __future__ import annotations

import configparser
import re
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parent.parent
# Below these lie known vulnerabilities; setup.cfg may ask for more.
SAFE = {"tornado": "6.5.7", "authlib": "1.7.1", "joserfc": "1.6.3", "pymongo": "4.13", "mcp": "2"}


def requirements(section: str, name: str) -> list[Requirement]:
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    return [Requirement(line) for line in settings[section][name].splitlines() if line and not line.startswith("#")]


BASE = requirements("options", "install_requires")


def floor(requirement: Requirement) -> Version:
    """The oldest version that is admitted."""
    (version,) = [part.version for part in requirement.specifier if part.operator in (">=", "==")]
    return Version(version)


def test_no_floor_admits_a_known_vulnerability() -> None:
    """SEC-62: the floors that setup.cfg gives, which .ci/run installs and tests."""
    known = {
        requirement.name: floor(requirement) for requirement in [*BASE, *requirements("options.extras_require", "mcp")]
    }
    assert len(known) == len(BASE) + 1
    for name, version in SAFE.items():
        assert known[name] >= Version(version), name
    script = (ROOT / ".ci" / "run").read_text()
    assert 'step "lower bounds"' in script


def test_each_dependency_has_its_reason_in_the_reference() -> None:
    page = (ROOT / "docs" / "reference" / "dependencies.md").read_text()
    reasons = dict(re.findall(r"^\| `([a-z]+)` \| ([^|]{10,}) \| [^|]{3,} \|$", page, re.MULTILINE))
    assert set(reasons) >= {requirement.name for requirement in BASE}
    for extra in ("mcp", "speed", "sample"):
        for requirement in requirements("options.extras_require", extra):
            assert f"| `{extra}` | `{requirement.name}` |" in page
