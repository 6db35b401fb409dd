"""`python -m tests.health.blockable ...`: the sample server, whose event loop SIGUSR1 holds up for three seconds."""

from __future__ import annotations

import signal
import sys
import time

from sample_server.__main__ import main

SECONDS = 3.0

if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, lambda *_: time.sleep(SECONDS))
    sys.exit(main(sys.argv))
