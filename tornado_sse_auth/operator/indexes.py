"""`indexes`: those that are needed, compared with those that are there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pymongo import IndexModel

from ..errors import ConfigurationError
from ..events.mongo import INDEXES as EVENT_INDEXES
from ..mongodb import bounded, starting
from ..stores.documents import KEPT_INDEXES, RECORD_INDEXES, SESSION_INDEXES
from .arguments import Arguments
from .deployment import Deployment
from .terminal import Terminal

__all__ = ["compare"]

NEEDED: Mapping[str, tuple[IndexModel, ...]] = {
    "sessions": SESSION_INDEXES,
    "single_use_records": RECORD_INDEXES,
    "kept_records": KEPT_INDEXES,
    "events": EVENT_INDEXES,
}
OPTIONS = ("unique", "sparse", "expireAfterSeconds", "partialFilterExpression")
LONG_CALL = 10.0


async def compare(deployment: Deployment, given: Arguments, terminal: Terminal) -> int:
    """Status 1 where one is missing or has other options. `--create` makes the missing ones first."""
    found = await _found(deployment)
    if given.create and any(state == "missing" for _, _, state in found):
        terminal.confirm("Make the missing indexes? On large collections this takes a while.")
        for name, indexes in NEEDED.items():
            with starting():
                await deployment.database[name].create_indexes(list(indexes))
        found = await _found(deployment)
    if given.create and any(state == "differs" for _, _, state in found):
        raise ConfigurationError("an index has other options than it needs: drop it by hand, then run this again")
    terminal.document(
        {"indexes": [{"collection": name, "index": index, "state": state} for name, index, state in found]},
        *terminal.table(("collection", "index", "state"), found),
    )
    return 0 if all(state == "ok" for _, _, state in found) else 1


async def _found(deployment: Deployment) -> list[tuple[str, str, str]]:
    found = []
    for name, indexes in NEEDED.items():
        with bounded(LONG_CALL):
            there = await deployment.database[name].index_information()
        found += [(name, index.document["name"], _state(index.document, there)) for index in indexes]
    return found


def _state(needed: Mapping[str, Any], there: Mapping[str, Any]) -> str:
    index = there.get(needed["name"])
    if index is None:
        return "missing"
    same = list(needed["key"].items()) == list(index["key"]) and all(
        needed.get(option) == index.get(option) for option in OPTIONS
    )
    return "ok" if same else "differs"
