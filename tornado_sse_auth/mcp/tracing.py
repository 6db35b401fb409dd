"""The SDK's spans, where somebody collects them."""

from __future__ import annotations

from typing import Any

from mcp.server._otel import OpenTelemetryMiddleware
from mcp.server.context import CallNext, HandlerResult, ServerMiddleware, ServerRequestContext
from mcp.server.lowlevel.server import Server
from opentelemetry import trace

__all__ = ["trace_where_collected"]


class _WhenCollected(ServerMiddleware[Any]):
    """The SDK's middleware makes a span of every message, which costs a twentieth of a call also where no tracer
    provider is set and the span goes nowhere. Whether one is set is asked at each call: it may be set later."""

    def __init__(self, traced: OpenTelemetryMiddleware) -> None:
        self._traced = traced

    async def __call__(self, ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
        if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
            return await call_next(ctx)
        return await self._traced(ctx, call_next)


def trace_where_collected(server: Server[Any]) -> None:
    """Let `server` make spans only where a tracer provider is set."""
    server.middleware[:] = [
        _WhenCollected(part) if isinstance(part, OpenTelemetryMiddleware) else part for part in server.middleware
    ]
