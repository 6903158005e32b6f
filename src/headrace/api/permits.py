"""What a role alone does not decide: the objects that a message names must be granted to its sender.

The gate (guard.py) leaves a Permit in the scope of a request; the application has the message pass it once it is
decoded, before a handler works on it or it goes on to stock.
"""

from __future__ import annotations

from headrace.api.endpoint import Endpoint
from headrace.api.message import Message
from headrace.api.workspace_header import workspace_of
from headrace.asgi.types import Scope
from headrace.auth.access import Access, Grants, grantees
from headrace.auth.principals import Principal, Right
from headrace.entities import DEFAULT_WORKSPACE


class Permit:
    """What the message of one request must pass.

    `workspace`: the one that the request works in. `grantees`: see Call; whether a whole workspace is granted is known
    once the message was checked. `exact`: whether the sender's rights are limited, so that nothing of the request may
    be left that is not in the message, and what goes to stock is written anew from it.
    """

    __slots__ = ("_access", "_checked", "_endpoint", "_limited", "_workspace", "exact", "grantees", "who")

    def __init__(self, access: Access, who: Principal, endpoint: Endpoint, workspace: str) -> None:
        self._access, self._endpoint, self._workspace = access, endpoint, workspace
        self.who = who
        self._checked = access.needs_object_check(who, endpoint.right, endpoint.target)
        self._limited = access.is_limited(who)
        self.exact = self._checked or (self._limited and endpoint.right > Right.SIGNED_IN)
        self.grantees = grantees(who.user, who.groups) if self._limited else None

    async def check(self, message: Message) -> None:
        """Check that every object that the message names is granted, and that the request's workspace is theirs.

        Raises Forbidden, NotFound, Unavailable.
        """
        access, target = self._access, self._endpoint.target
        if access.workspaces and self._limited:
            await access.check_entry(self.who, self._workspace)
            if await access.right_in(self.who, self._workspace) >= Right.READ:
                self.grantees = None
        if not self._checked:
            return
        if target.creates:
            await access.check_making(self.who, self._endpoint.right, self._workspace)
        else:
            await access.check(self.who, self._endpoint.right, target.objects(message), self._workspace)

    async def granted(self) -> Grants:
        """What is granted to the sender. Raises Unavailable."""
        return await self._access.granted(self.who)

    def forget(self) -> None:
        """Grants have changed: read them again."""
        self._access.forget()


def permit_of(scope: Scope, access: Access, who: Principal, endpoint: Endpoint) -> Permit | None:
    """None where the sender's role is enough for any object. Raises Forbidden; InvalidParameter for two workspaces."""
    if access.allows_by_role(who, endpoint.right):
        return None
    return Permit(access, who, endpoint, workspace_of(scope) if access.workspaces else DEFAULT_WORKSPACE)
