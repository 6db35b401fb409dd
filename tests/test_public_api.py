"""The public names: documented one by one, and each says what it is."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

import tornado_sse_auth
from tornado_sse_auth import authorization_server, mcp, testing

REFERENCE = Path(__file__).parent.parent / "docs" / "reference" / "api.md"
CONTRACT = {
    "SSEAuthenticationMiddleware",
    "SSEAuthMixin",
    "UserContext",
    "Session",
    "TokenSet",
    "Secret",
    "EventStream",
    "EventLog",
    "MemoryEventLog",
    "MongoEventLog",
    "RefreshManager",
    "SessionManager",
    "SessionStore",
    "MemorySessionStore",
    "MongoSessionStore",
    "OAuthProvider",
    "Keyring",
    "StatsDMetrics",
    "AuthError",
    "AuthenticationRequiredError",
    "InsufficientScopeError",
    "StreamEnded",
}


def documented(module: str) -> list[str]:
    """The names with an autodoc directive under `currentmodule:: module`, in the page's order."""
    names: list[str] = []
    current = ""
    for kind, name in re.findall(r"^\.\. (currentmodule|auto\w+):: (\S+)", REFERENCE.read_text(), re.MULTILINE):
        if kind == "currentmodule":
            current = name
        elif current == module:
            names.append(name)
    return names


@pytest.mark.parametrize(
    "module", [tornado_sse_auth, authorization_server, mcp, testing], ids=lambda module: module.__name__
)
def test_the_reference_lists_every_public_name_once(module: object) -> None:
    assert sorted(documented(module.__name__)) == sorted(module.__all__)


def test_the_names_of_the_contract_are_public() -> None:
    assert set(tornado_sse_auth.__all__) >= CONTRACT
    assert sorted(tornado_sse_auth.__all__) == sorted(set(tornado_sse_auth.__all__))


@pytest.mark.parametrize("name", tornado_sse_auth.__all__)
def test_a_public_name_and_its_public_members_have_docstrings(name: str) -> None:
    thing = getattr(tornado_sse_auth, name)
    if not inspect.isclass(thing) and not inspect.isfunction(thing):
        return  # an alias such as IdentityMapper; its page says what it is
    assert thing.__doc__
    # A dataclass without a docstring gets its signature for one.
    assert not thing.__doc__.startswith(f"{name}(")
    for member, value in vars(thing).items():
        function = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
        if not member.startswith("_") and inspect.isfunction(function):
            assert inspect.getdoc(getattr(thing, member)), f"{name}.{member}"
