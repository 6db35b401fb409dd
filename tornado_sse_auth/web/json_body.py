"""JSON that came from outside: bounded in depth and in the length of its numbers. Pure."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Any

from ..errors import InvalidRequestError

__all__ = ["read_json", "read_json_object"]

MAX_DIGITS = 400


def read_json(body: bytes, *, max_depth: int) -> Any:
    """A JSON document of at most `max_depth` levels, whose numbers a double can hold or are integers of at most 400
    digits. Raises `InvalidRequestError`."""
    try:
        document = _DECODER.decode(body.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise InvalidRequestError("The body is not a JSON document.", reason=str(error)[:200]) from None
    # A document with no more brackets than levels needs no walk.
    if body.count(b"{") + body.count(b"[") > max_depth and _is_deep(document, max_depth):
        raise InvalidRequestError("The JSON document is nested too deeply.")
    return document


def read_json_object(body: bytes, *, max_depth: int) -> dict[str, Any]:
    """A JSON object; nothing at all is an empty one. Raises `InvalidRequestError`."""
    document = read_json(body, max_depth=max_depth) if body else {}
    if not isinstance(document, dict):
        raise InvalidRequestError("The body is not a JSON object.")
    return document


def _is_deep(document: Any, max_depth: int) -> bool:
    level = [document]
    for _ in range(max_depth + 1):
        containers = [item for item in level if isinstance(item, dict | list)]
        if not containers:
            return False
        level = [item for container in containers for item in _members(container)]
    return True


def _members(container: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return container.values() if isinstance(container, dict) else container


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def _integer(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError("an integer is too long")
    return int(digits)


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError("a number beyond what a double holds")
    return number


_DECODER = json.JSONDecoder(parse_constant=_refuse, parse_int=_integer, parse_float=_finite)
