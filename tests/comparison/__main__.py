"""`python -m tests.comparison [PROBE ...]`: the table of docs/explanation/comparison.md, asked anew."""

from __future__ import annotations

import asyncio
import sys

from tests.comparison.compared import NAMES, compare
from tests.comparison.probes import PROBES
from tests.parts import mongod


def main() -> int:
    """All probes, or those named."""
    names = sys.argv[1:] or [probe.__name__ for probe in PROBES]
    with mongod.shared() as servers:
        table = asyncio.run(compare(names, servers.uri))
    print(f"| probe | {' | '.join(NAMES)} |")
    print(f"|---|{'---|' * len(NAMES)}")
    for name in names:
        print(f"| `{name}` | {' | '.join(table[name])} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
