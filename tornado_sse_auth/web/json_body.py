"""JSON that came from outside: bounded in depth and in the length of its numbers. Pure."""

from __future__ import annotations

import json
from typing import Any

from ..errors import InvalidRequestError

__all__ = ["read_json", "read_json_object"]

MAX_DEPTH = 64
MAX_DIGITS = 400


def read_json(body: bytes) -> Any:
    """A JSON document of at most 64 levels. Raises `InvalidRequestError`."""
    try:
        text = body.decode("utf-8")
        if _depth(text) > MAX_DEPTH:
            raise InvalidRequestError("The JSON document is nested too deeply.")
        return json.loads(text, parse_constant=_refuse, parse_int=_integer)
    except (ValueError, RecursionError) as error:
        raise InvalidRequestError("The body is not a JSON document.", reason=str(error)[:200]) from None


def read_json_object(body: bytes) -> dict[str, Any]:
    """A JSON object; nothing at all is an empty one. Raises `InvalidRequestError`."""
    document = read_json(body) if body else {}
    if not isinstance(document, dict):
        raise InvalidRequestError("The body is not a JSON object.")
    return document


def _depth(text: str) -> int:
    """An upper bound of the nesting, without parsing: brackets inside strings do not count."""
    depth = deepest = 0
    in_string = escaped = False
    for char in text if "[" in text or "{" in text else "":
        if in_string:
            if escaped:
                escaped = False
            elif char == "\\":
                escaped = True
            elif char == '"':
                in_string = False
        elif char == '"':
            in_string = True
        elif char in "[{":
            depth += 1
            deepest = max(deepest, depth)
            if deepest > MAX_DEPTH:
                break
        elif char in "]}":
            depth -= 1
    return deepest


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def _integer(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError("an integer is too long")
    return int(digits)
