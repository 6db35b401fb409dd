"""A sample server: run it, then copy it."""
