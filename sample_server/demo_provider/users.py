"""The people of the demo."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["DEMO_USERS", "DemoUser"]


@dataclass(frozen=True, slots=True)
class DemoUser:
    """One account: its subject, and what its claims say."""

    subject: str
    name: str
    about: str
    subscription: str

    def claims(self, scopes: frozenset[str]) -> dict[str, object]:
        """The claims that `scopes` give access to (OpenID Connect Core, section 5.4)."""
        if "profile" not in scopes:
            return {}
        return {"name": self.name, "subscription_level": self.subscription, "permissions": ["events"]}


DEMO_USERS = {
    user.subject: user
    for user in (
        DemoUser("ada", "Ada Lovelace", "wrote the first program", "pro"),
        DemoUser("grace", "Grace Hopper", "wrote the first compiler", "pro"),
        DemoUser("alan", "Alan Turing", "asked whether machines can think", "free"),
        DemoUser("linus", "Linus Example", "has just arrived", "free"),
    )
}
