"""From a command line to an exit status."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Awaitable, Callable, Sequence

from ..audit import RequestInfo, current_request
from ..errors import ConfigurationError, StoreUnavailableError
from . import indexes, keys, sessions
from .arguments import Arguments, parse
from .deployment import Deployment, connected
from .terminal import Declined, Terminal

__all__ = ["main"]

Action = Callable[[Deployment, Arguments, Terminal], Awaitable[int]]
ACTIONS: dict[tuple[str, str | None], Action] = {
    ("sessions", "list"): sessions.list_sessions,
    ("sessions", "show"): sessions.show,
    ("sessions", "revoke"): sessions.revoke,
    ("sessions", "revoke-user"): sessions.revoke_user,
    ("sessions", "revoke-client"): sessions.revoke_client,
    ("sessions", "revoke-all"): sessions.revoke_all,
    ("keys", "status"): keys.status,
    ("keys", "reseal"): keys.reseal,
    ("indexes", None): indexes.compare,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line (None: that of the process) says; the exit status, which `--help` lists."""
    given = parse(arguments, os.environ)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s %(message)s", level=logging.WARNING)
    logging.getLogger("tornado_sse_auth.audit").setLevel(logging.INFO)
    current_request.set(RequestInfo(client=f"operator's tool, user {os.getuid()}"))
    terminal = Terminal(as_json=given.json, assume_yes=getattr(given, "yes", False))
    try:
        status = asyncio.run(_run(given, terminal))
        sys.stdout.flush()
    except ConfigurationError as error:
        terminal.tell(f"tornado_sse_auth: {error}")
        return 2
    except StoreUnavailableError as error:
        terminal.tell(f"tornado_sse_auth: MongoDB does not answer: {error.reason}")
        return 3
    except Declined:
        terminal.tell("Nothing was changed.")
        return 1
    except KeyboardInterrupt:
        terminal.tell("Interrupted.")
        return 130
    except BrokenPipeError:  # whoever read the output has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    finally:
        terminal.close()
    return status


async def _run(given: Arguments, terminal: Terminal) -> int:
    async with connected(given) as deployment:
        return await ACTIONS[given.command, getattr(given, "action", None)](deployment, given, terminal)
