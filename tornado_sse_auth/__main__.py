"""`python -m tornado_sse_auth`: sessions, keys and indexes of a deployment, from a terminal."""

import sys

from .operator import main

if __name__ == "__main__":
    sys.exit(main())
