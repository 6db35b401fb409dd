"""`python -m tests.soak.observed_server FILE`, and the options of the sample server, which it is: it also writes each
validation of a session to FILE, as a line of JSON: when it began, the milliseconds it took, whose it was, whether the
cache had it."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TextIO

from sample_server.__main__ import main
from tornado_sse_auth.sessions import manager
from tornado_sse_auth.sessions.cache import Authenticated
from tornado_sse_auth.sessions.credentials import PresentedCredential
from tornado_sse_auth.sessions.validation import SessionValidation


def _observe(lines: TextIO) -> None:
    def note(began: float, found: Authenticated, *, cached: bool) -> None:
        lines.write(json.dumps([began, (time.time() - began) * 1000, found.session.user_id, cached]) + "\n")

    class ObservedValidation(SessionValidation):
        """As the timer `session.validate` has them."""

        def cached(self, presented: PresentedCredential) -> Authenticated | None:
            began = time.time()
            found = super().cached(presented)
            if found is not None:
                note(began, found, cached=True)
            return found

        async def read(self, presented: PresentedCredential, resource: str | None) -> Authenticated:
            began = time.time()
            found = await super().read(presented, resource)
            note(began, found, cached=False)
            return found

    manager.SessionValidation = ObservedValidation  # type: ignore[misc]


if __name__ == "__main__":
    with Path(sys.argv.pop(1)).open("w", buffering=1, encoding="utf-8") as file:
        _observe(file)
        status = main()
    sys.exit(status)
