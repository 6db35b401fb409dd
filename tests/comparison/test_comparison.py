"""The table of the documentation is what the servers answer."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.comparison.compared import NAMES, compare
from tests.comparison.probes import PROBES
from tests.parts import mongod as mongo
from tests.parts.fastmcp_environment import find_fastmcp
from tests.parts.require import require

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "comparison.md"


@pytest.mark.real("fastmcp")
async def test_the_table_is_what_they_answer(mongod: mongo.ReplicaSet | mongo.ExternalMongo) -> None:
    require(find_fastmcp)
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in PAGE.read_text(encoding="utf-8").splitlines()
        if re.match(r"\| (probe|`\w+`) \|", line)
    ]
    heading, *documented = rows
    assert heading[2:] == list(NAMES)
    assert [row[0].strip("`") for row in documented] == [probe.__name__ for probe in PROBES]
    answers = await compare([probe.__name__ for probe in PROBES], mongod.uri)
    assert {row[0].strip("`"): row[2:] for row in documented} == answers
