"""The operator's tool: `python -m tornado_sse_auth`."""

from .command import main

__all__ = ["main"]
