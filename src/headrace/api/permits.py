"""What a role alone does not decide: the objects that a message names must be granted to its sender.

The gate (guard.py) leaves a Permit in the scope of a request; the application has the message pass it once it is
decoded, before a handler works on it or it goes on to stock.
"""

from __future__ import annotations

from headrace.api.endpoint import Endpoint
from headrace.api.message import Message
from headrace.asgi.types import Scope
from headrace.auth.access import Access, grantees
from headrace.auth.principals import Principal


class Permit:
    """What the message of one request must pass.

    `grantees`: see Call. `exact`: whether the sender's rights are limited, so that nothing of the request may be left
    that is not in the message, and what goes to stock is written anew from it.
    """

    __slots__ = ("_access", "_checked", "_endpoint", "exact", "grantees", "who")

    def __init__(self, access: Access, who: Principal, endpoint: Endpoint) -> None:
        self._access, self._endpoint = access, endpoint
        self.who = who
        self._checked = access.needs_object_check(who, endpoint.right, endpoint.target)
        limited = access.is_limited(who)
        self.exact = self._checked or limited
        self.grantees = grantees(who) if limited else None

    async def check(self, message: Message) -> None:
        """Check that every object that the message names is granted. Raises Forbidden, NotFound, Unavailable."""
        if self._checked:
            await self._access.check(self.who, self._endpoint.right, self._endpoint.target.objects(message))

    def forget(self) -> None:
        """Grants have changed: read them again."""
        self._access.forget()


def permit_of(scope: Scope, access: Access, who: Principal, endpoint: Endpoint) -> Permit | None:
    """None where the sender's role is enough for any object. Raises Forbidden."""
    return None if access.allows_by_role(who, endpoint.right) else Permit(access, who, endpoint)
