"""What a resource asks of a user, and whether a user context meets it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..errors import (
    ConfigurationError,
    InsufficientPermissionError,
    InsufficientScopeError,
    InsufficientSubscriptionError,
)
from ..identity import UserContext

__all__ = ["NO_REQUIREMENTS", "Requirements"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirements:
    """All of `scopes`, all of `permissions`, and at least the level `subscription`."""

    scopes: frozenset[str] = frozenset()
    permissions: frozenset[str] = frozenset()
    subscription: str | None = None

    @classmethod
    def of(
        cls, scopes: Iterable[str] = (), permissions: Iterable[str] = (), subscription: str | None = None
    ) -> Requirements:
        """Requirements from any iterables of names; a lone string counts as one name. Those of who asks for nothing
        are `NO_REQUIREMENTS` itself."""
        asked = cls(scopes=_names(scopes), permissions=_names(permissions), subscription=subscription)
        return asked if asked != NO_REQUIREMENTS else NO_REQUIREMENTS

    def both(self, other: Requirements, levels: Sequence[str]) -> Requirements:
        """All of both, and the higher of two subscription levels. `levels`: from lowest to highest; what is not among
        them counts as above them all, since a rule that cannot be judged never passes."""
        ranks = {level: rank for rank, level in enumerate(levels)}
        asked = [level for level in (self.subscription, other.subscription) if level is not None]
        return Requirements(
            scopes=self.scopes | other.scopes,
            permissions=self.permissions | other.permissions,
            subscription=max(asked, key=lambda level: ranks.get(level, len(ranks)), default=None),
        )

    def check(self, user: UserContext, levels: Sequence[str]) -> None:
        """Raise the error for what `user` lacks. `levels`: the subscription levels from lowest to highest.

        Raises `InsufficientScopeError`, `InsufficientPermissionError`, `InsufficientSubscriptionError`;
        `ConfigurationError` when the level asked for is not among `levels`: a rule that cannot be judged never passes.
        """
        if not self.scopes <= user.scopes:
            raise InsufficientScopeError(
                required=self.scopes, reason=f"lacks scopes {sorted(self.scopes - user.scopes)}"
            )
        if not self.permissions <= user.permissions:
            lacking = ", ".join(sorted(self.permissions - user.permissions))
            raise InsufficientPermissionError(f"This needs the permission {lacking}.")
        if self.subscription is not None:
            if self.subscription not in levels:
                raise ConfigurationError(f"subscription level {self.subscription!r} is not in subscription_levels")
            rank = levels.index(user.subscription) if user.subscription in levels else -1
            if rank < levels.index(self.subscription):
                raise InsufficientSubscriptionError(
                    f"This needs the subscription {self.subscription}.", reason=f"has {user.subscription!r}"
                )


def _names(names: Iterable[str]) -> frozenset[str]:
    return frozenset((names,)) if isinstance(names, str) else frozenset(names)


NO_REQUIREMENTS = Requirements()
