"""The metrics in the real Graphite: read back by a test, and drawn by `python -m tests.graphite`."""
