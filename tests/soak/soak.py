"""How long, from which seed, and where the progress goes: what every scenario is given."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from random import Random


@dataclass
class Soak:
    """One run of one scenario, of `seconds`, all of whose choices come from `seed`."""

    scenario: str
    seconds: float
    seed: int
    random: Random = field(init=False)
    _begun: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.random = Random(f"{self.scenario} {self.seed}")

    def begin(self) -> None:
        """What was prepared is ready: the time counts from here."""
        self._begun = time.monotonic()

    @property
    def elapsed(self) -> float:
        """Seconds since `begin`."""
        return time.monotonic() - self._begun

    @property
    def over(self) -> bool:
        """Whether the time is up."""
        return self.elapsed >= self.seconds

    def tell(self, text: str) -> None:
        """Progress, for a person at a terminal; a pipe gets none."""
        if sys.stderr.isatty():
            print(f"\r\033[K{self.scenario} {self.elapsed:4.0f} s  {text}", end="", file=sys.stderr, flush=True)
