"""What a tool, resource or prompt asks of the user."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mcp.server.lowlevel.server import Server
from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.resources.templates import ResourceSecurityError
from mcp.shared.uri_template import UriTemplate

from ..errors import ConfigurationError
from ..sessions.requirements import NO_REQUIREMENTS, Requirements

__all__ = ["AccessRules", "requires"]

META_KEY = "tornado-sse-auth/requires"

# Which member of its params names what a method is about, and under which method the rule for that is kept.
_SUBJECTS = {
    "tools/call": ("tools/call", "name"),
    "prompts/get": ("prompts/get", "name"),
    "resources/read": ("resources/read", "uri"),
    "resources/subscribe": ("resources/read", "uri"),
}
_COMPLETED = {"ref/prompt": ("prompts/get", "name"), "ref/resource": ("resources/read", "uri")}


def requires(
    *, scopes: Iterable[str] = (), permissions: Iterable[str] = (), subscription: str | None = None
) -> dict[str, Any]:
    """What a tool, resource or prompt asks of its user: all of `scopes`, all of `permissions`, and at least the level
    `subscription`. Goes into the SDK's own `meta`, where clients can read it, too::

        @server.tool(meta=requires(scopes={"events:write"}))
        async def publish(text: str) -> str: ...
    """
    needed = Requirements.of(scopes, permissions, subscription)
    rule: dict[str, Any] = {}
    if needed.scopes:
        rule["scopes"] = sorted(needed.scopes)
    if needed.permissions:
        rule["permissions"] = sorted(needed.permissions)
    if needed.subscription is not None:
        rule["subscription"] = needed.subscription
    return {META_KEY: rule}


def _of(meta: Mapping[str, Any] | None) -> Requirements:
    rule = (meta or {}).get(META_KEY)
    return NO_REQUIREMENTS if rule is None else Requirements.of(**rule)


class AccessRules:
    """The rules of one server: those in the `meta` of an `MCPServer`'s tools, resources and prompts, as they are at
    the time of the call, and those given by method and name, which low-level servers need.

    Raises `ConfigurationError` for a method that has no rules."""

    def __init__(
        self,
        server: MCPServer[Any] | Server[Any],
        given: Mapping[tuple[str, str], Mapping[str, Any]],
        levels: Sequence[str] = (),
    ) -> None:
        self._levels = levels
        self._server = server if isinstance(server, MCPServer) else None
        self._given: dict[tuple[str, str], Requirements] = {}
        self._templates: list[tuple[UriTemplate, Requirements]] = []
        for (method, name), meta in given.items():
            if method not in ("tools/call", "prompts/get", "resources/read"):
                raise ConfigurationError(f"rules are for tools/call, prompts/get and resources/read, not {method!r}")
            self._given[method, name] = _of(meta)
            if method == "resources/read" and "{" in name:
                self._templates.append((UriTemplate.parse(name), _of(meta)))

    def needed(self, method: str, params: Mapping[str, Any] | None) -> Requirements:
        """What this request asks of its user."""
        params = params or {}
        if method == "completion/complete":
            reference = params.get("ref")
            params = reference if isinstance(reference, Mapping) else {}
            subject = _COMPLETED.get(str(params.get("type")))
        else:
            subject = _SUBJECTS.get(method)
        if subject is None:
            return NO_REQUIREMENTS
        kind, member = subject
        name = params.get(member)
        if not isinstance(name, str):
            return NO_REQUIREMENTS
        return self.resource(name) if kind == "resources/read" else self._named(kind, name)

    def resource(self, uri: str) -> Requirements:
        """What reading `uri` asks, and being told of its changes."""
        needed = self._given.get(("resources/read", uri), NO_REQUIREMENTS)
        for template, rule in self._templates:
            if template.match(uri) is not None:
                needed = self.both(needed, rule)
        return needed if self._server is None else self.both(needed, self._declared(self._server, uri))

    def both(self, one: Requirements, other: Requirements) -> Requirements:
        """All of both, and the higher of the two subscription levels."""
        return one.both(other, self._levels)

    def _named(self, kind: str, name: str) -> Requirements:
        needed = self._given.get((kind, name), NO_REQUIREMENTS)
        if self._server is not None:
            found: Any = (
                self._server._tool_manager.get_tool(name)
                if kind == "tools/call"
                else self._server._prompt_manager.get_prompt(name)
            )
            meta = getattr(found, "meta", None)
            if meta:
                needed = self.both(needed, _of(meta))
        return needed

    def _declared(self, server: MCPServer[Any], uri: str) -> Requirements:
        """The rule of what answers for `uri`: a resource, else the first template that fits, as the SDK has it."""
        manager = server._resource_manager
        resource = manager._resources.get(uri)
        if resource is not None:
            return _of(resource.meta)
        for template in manager._templates.values():
            try:
                fits = uri == template.uri_template or template.matches(uri) is not None
            except ResourceSecurityError:
                fits = True  # it answers "not found"; until then the rule holds
            if fits:
                return _of(template.meta)
        return NO_REQUIREMENTS
