"""The page of rows says what the tests say."""

from __future__ import annotations

import re

from tests.rows import NOT_YET, PAGE, ROWS, page, where_tested


def test_every_row_is_shown_by_a_test_or_says_why_not() -> None:
    where = where_tested()
    assert set(where) <= set(ROWS), "a docstring names a row that tests/rows.py does not have"
    assert set(NOT_YET) <= set(ROWS)
    assert set(ROWS) - set(where) <= set(NOT_YET), "a row without a test needs a reason in tests/rows.py"
    assert all(NOT_YET.values())


def test_the_page_is_what_the_docstrings_say() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "write it anew: python -m tests.rows"
    assert len(re.findall(r"^\| (?:SEC|REL)-\d\d \|", page(), re.MULTILINE)) == len(ROWS)
