"""Benchmarks: `python -m tests.benchmarks [NAME ...] [--json FILE]`. Ratios against a baseline in the same run."""
