"""What the property tests draw from, and how they tell a documented error from a finding.

`pytest tests/security --hypothesis-profile=long` searches longer (the profiles are in tests/conftest.py). What it found
is kept as an `@example`.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

__all__ = ["HEADER", "JSON", "NASTY_TEXT", "OURS", "raises"]

OURS = st.binary(min_size=32, max_size=32).map(lambda raw: base64.urlsafe_b64encode(raw).rstrip(b"=").decode())
# What a header can hold, as Tornado gives it: Latin-1 without control characters.
HEADER = st.text(st.characters(max_codepoint=255, exclude_categories=("Cc",)), max_size=80)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
NASTY_TEXT = st.text(st.sampled_from("\r\n\0:ab \ufeff\u2028\x85é"), max_size=30) | st.text(max_size=30)


def raises(kind: type[Exception] | tuple[type[Exception], ...], call: Callable[[], Any]) -> Any:
    """What `call` gives, or None where it raises one of the documented errors; any other is a finding."""
    try:
        return call()
    except kind:
        return None
