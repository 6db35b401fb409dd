"""The suite is a real part: it is fetched from npm and needs Node.js."""

from __future__ import annotations

import pytest

from tests.parts.node import find_packages
from tests.parts.require import require


@pytest.fixture(scope="session")
def conformance() -> None:
    """The packages, fetched."""
    require(find_packages)
