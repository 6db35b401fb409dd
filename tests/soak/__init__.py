"""Faults for minutes or hours: `python -m tests.soak --minutes N [--seed S] [--scenario NAME ...]`.

A scenario is a module with `async def run(soak: Soak) -> Findings`, named in `__main__.SCENARIOS`.
"""
