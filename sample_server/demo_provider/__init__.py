"""A little OpenID provider for trying the sample server: everybody may sign in as any of its four users."""

from .provider import DemoProvider
from .users import DEMO_USERS, DemoUser

__all__ = ["DEMO_USERS", "DemoProvider", "DemoUser"]
