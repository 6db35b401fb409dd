"""Spans cost nothing where nobody collects them, and are there where somebody does."""

from __future__ import annotations

from typing import Any

import pytest
from mcp.server.lowlevel.server import Server
from opentelemetry import trace
from opentelemetry.trace import NoOpTracer, NoOpTracerProvider

from tornado_sse_auth.mcp.tracing import trace_where_collected


class Collecting(NoOpTracerProvider):
    """Notes the names of the spans that are begun."""

    def __init__(self) -> None:
        self.begun: list[str] = []

    def get_tracer(self, *args: Any, **kwargs: Any) -> trace.Tracer:
        begun = self.begun

        class Tracer(NoOpTracer):
            def start_as_current_span(self, name: str, *args: Any, **kwargs: Any) -> Any:
                begun.append(name)
                return super().start_as_current_span(name, *args, **kwargs)

        return Tracer()


class Context:
    """As much of a request as the SDK's middleware reads."""

    method, params, request_id, protocol_version, meta = "tools/call", {"name": "whoami"}, 1, "2026-07-28", None


async def test_a_span_is_made_where_it_is_collected(monkeypatch: pytest.MonkeyPatch) -> None:
    server: Server[Any] = Server("traced")
    trace_where_collected(server)
    (middleware,) = server.middleware

    async def answer(_: Any) -> dict[str, Any]:
        return {"content": []}

    monkeypatch.setattr("mcp.server._otel.otel_span", None)  # not asked for
    assert await middleware(Context(), answer) == {"content": []}  # type: ignore[arg-type]
    monkeypatch.undo()

    collecting = Collecting()
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", collecting)
    assert await middleware(Context(), answer) == {"content": []}  # type: ignore[arg-type]
    assert collecting.begun == ["tools/call whoami"]
