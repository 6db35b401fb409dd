"""What a check is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from ..errors import AuthError, ConfigurationError
from .report import Answer, Measurement, Status, Trouble

__all__ = ["Check", "milliseconds", "reason_of"]


class Check(ABC):
    """One question, asked again and again. `name` is part of the gauge's name; `component` is `datastore`, `component`
    or `system` (draft-inadarei-api-health-check, section 4.3)."""

    name: ClassVar[str]
    component: ClassVar[str]

    @abstractmethod
    async def ask(self) -> Answer:
        """The answer. May raise, and may take too long: `unanswered` says what that means."""

    async def close(self) -> None:  # noqa: B027 - most checks leave nothing running
        """End what `ask` left running. Does nothing, unless a check says otherwise."""

    def unanswered(self, reason: str) -> Answer:
        """What it means that `ask` raised or did not end in time; `reason` is free of secrets and addresses."""
        trouble = Trouble(
            what=f"the check {self.name!r} has not been able to look",
            detail=reason,
            hurts="what it watches is not known",
            remedy="look for it in the log",
        )
        return Answer(status=Status.WARN, trouble=trouble)


def reason_of(error: BaseException) -> str:
    """What may be shown of an error: the reasons of ours are made of class names, codes and numbers."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error.__cause__, ConfigurationError):  # its text is for the log: it quotes addresses
        return "what it says of itself is refused"
    if isinstance(error, AuthError) and error.reason:
        return error.reason
    return type(error).__name__


def milliseconds(name: str, seconds: float) -> Measurement:
    """A duration as people on call read it."""
    return Measurement(name, round(seconds * 1000, 1), "ms")
