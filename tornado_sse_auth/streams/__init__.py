"""Streams: one SSE response each, who is open, and the fan-out of event logs."""

from .hub import ChannelHub
from .reasons import CloseReason
from .registry import StreamRegistry
from .stream import EventStream

__all__ = ["ChannelHub", "CloseReason", "EventStream", "StreamRegistry"]
