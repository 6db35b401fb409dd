"""`python -m tests.health [--write FILE]`: every fault, one after the other; takes some minutes."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.benchmarks.progress import progress
from tests.health.faults import (
    ANSWER_FAULTS,
    PROCESS_FAULTS,
    PROVIDER_FAULTS,
    STORE_FAULTS,
    Observed,
    keys_missing,
    observe,
    real_world,
    scripted_world,
)
from tests.parts import mongod as mongo
from tests.parts import provider as oidc

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "health-faults.md"
HEAD = """# What health says of faults

Made by this command, with a real MongoDB, a real OpenID provider, and a provider that answers as it is told where a
real one cannot; somebody asks each path five times a second.

```console
$ .venv/bin/python -m tests.health
```

In each row the same stream stays open from before the fault until after it. Times are seconds; *seen after*: from the
fault until `/health` names it; *slowest*: the slowest answer of the three paths while it lasts; *passes after*: from
its end until all is seen to be well, without anybody's help. Where the event loop itself is blocked, nobody is
answered before it goes round again: the slowest answer is what was left of the three seconds when it was asked for.
The rules are in [Health](health.md).

"""


async def all_of_them() -> list[Observed]:
    """Every row of the table."""
    rows: list[Observed] = []
    with mongo.replica_set(1) as servers, oidc.running() as provider:
        async with real_world(servers, provider) as world:
            for fault in (*STORE_FAULTS, *PROVIDER_FAULTS, *PROCESS_FAULTS):
                rows.append(tell(await observe(world, fault)))
        async with scripted_world(servers) as world:
            for fault in ANSWER_FAULTS:
                rows.append(tell(await observe(world, fault)))
        rows.append(tell(await keys_missing(servers, provider)))
    return rows


def tell(row: Observed) -> Observed:
    """Progress for whoever waits."""
    progress(f"{row.fault}: seen after {row.seen_after:.1f} s, passes after {row.passes_after:.1f} s")
    return row


def page(rows: Sequence[Observed]) -> str:
    """The page of the documentation."""
    lines = [
        "| fault | `/livez` | `/readyz` | `/health` | seen after | slowest | passes after |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        said = " | ".join(row.said[path] for path in ("/livez", "/readyz", "/health"))
        times = f"{row.seen_after:.1f} | {row.slowest:.2f} | {row.passes_after:.1f}"
        lines.append(f"| {row.fault} | {said} | {times} |")
    lines += ["", "## Its words", "", "| fault | check | `output` |", "|---|---|---|"]
    lines += [f"| {row.fault} | `{row.check}` | {row.output} |" for row in rows]
    return HEAD + "\n".join(lines) + "\n"


def main() -> int:
    """The table, written."""
    parser = argparse.ArgumentParser(prog="python -m tests.health", description=__doc__)
    parser.add_argument("--write", type=Path, default=PAGE, metavar="FILE", help="where the page goes")
    arguments = parser.parse_args()
    logging.getLogger("tornado.access").setLevel(logging.CRITICAL)  # the scripted provider's
    rows = asyncio.run(all_of_them())
    progress()
    arguments.write.write_text(page(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
