"""`python -m tests.benchmarks [NAME ...] [--json FILE]`: prints the table, writes it as JSON.

Ends with status 1 where a figure falls short.
"""

from __future__ import annotations

import argparse
import traceback
from collections.abc import Callable
from pathlib import Path

from tests.benchmarks import (
    descriptors,
    due,
    hostile_provider,
    mcp_rows,
    measuring,
    probes,
    refresh_faults,
    requests,
    revocation,
    schedule,
    store_faults,
    streams,
    targets,
)
from tests.benchmarks.profile import profile
from tests.benchmarks.progress import progress
from tests.benchmarks.rows import Row, as_json, table

BENCHMARKS: dict[str, Callable[[], list[Row]]] = {
    "cached": requests.cached,
    "uncached": requests.uncached,
    "opening": streams.opening,
    "fan-out": streams.fan_out,
    "idle": streams.idle,
    "tick": schedule.tick,
    "targets": targets.targets,
    "measuring": measuring.measuring,
    "revocation": revocation.revocation,
    "due": due.due,
    "mcp": mcp_rows.mcp,
    "probes": probes.probes,
    "dead-statsd": measuring.dead_statsd,
    "descriptors": descriptors.descriptors,
    "refresh-faults": refresh_faults.refresh_faults,
    "store-faults": store_faults.store_faults,
    "hostile-provider": hostile_provider.hostile_provider,
}


def main() -> int:
    """All of them, or those named."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("name", nargs="*", choices=[*BENCHMARKS, "profile", []], help="one of %(choices)s")
    parser.add_argument("--json", type=Path, default=Path("benchmarks.json"), help="where the table goes as JSON")
    arguments = parser.parse_args()
    if arguments.name == ["profile"]:
        print(profile())
        return 0
    rows: list[Row] = []
    failed: list[str] = []
    for name in arguments.name or BENCHMARKS:
        progress(name)
        try:
            rows += BENCHMARKS[name]()
        except Exception:  # the others have taken minutes, too
            progress()
            traceback.print_exc()
            failed.append(name)
    progress()
    print("\n".join([table(rows), *(f"{name} could not be measured" for name in failed)]))
    arguments.json.write_text(as_json(rows) + "\n")
    return 0 if all(row.met for row in rows) and not failed else 1


if __name__ == "__main__":
    raise SystemExit(main())
