"""Users of a provider of single sign-on: made at their first login, with the role that their groups have.

A name says nothing about who somebody is: a user is found by the provider's issuer and subject, and nobody becomes a
user who was there before (set up by an administrator, say) by having the same name.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from headrace.auth.accounts import Accounts, User
from headrace.auth.identities import Identities
from headrace.auth.principals import ROLES
from headrace.errors import Forbidden, Unauthenticated

Claims = dict[str, Any]

EVERYBODY = "*"
MAX_GROUPS = 200
WAIT_SECONDS = 0.5


def is_jwt(text: str) -> bool:
    """Whether a bearer token looks like a JSON Web Token."""
    return text.count(".") == 2


def roles_of(text: str) -> dict[str, str]:
    """`GROUP=ROLE,...` as group -> role; the group `*` is everybody. Raises ValueError."""
    roles = {}
    for part in text.split(","):
        group, _, role = part.rpartition("=")
        if not group.strip() or role.strip() not in ROLES:
            raise ValueError(part)
        roles[group.strip()] = role.strip()
    return roles


class SingleSignOn:
    """Claims -> user. `roles`: group -> role."""

    def __init__(self, accounts: Accounts, user_claim: str, groups_claim: str, roles: Mapping[str, str]) -> None:
        self._accounts, self._identities = accounts, Identities(accounts)
        self._user_claim, self._groups_claim, self._roles = user_claim, groups_claim, roles

    async def user(self, claims: Claims) -> User:
        """The user of verified claims, as they are now at the provider.

        Raises Forbidden for one who has no role here, Unauthenticated for one who was disabled, Unavailable.
        """
        subject = f"{claims['iss']} {claims['sub']}"
        groups = self._groups(claims)
        role = self._role(groups)
        name = await self._identities.user(subject)
        if name is None:
            name = await self._make(subject, claims, role)
        user = await self._accounts.user(name)
        if user is None or user.disabled_at is not None:
            raise Unauthenticated(f"The user {name} was disabled on this server.")
        if role is None:
            raise Forbidden(f"{name} is in no group that has a role on this server. Ask its administrator.")
        if user.role != role:
            await self._accounts.set_role(name, role)
        if user.groups != groups:
            await self._accounts.set_groups(name, groups)
        return User(name, role, user.password, None, user.sessions_after, user.created_at, groups)

    async def _make(self, subject: str, claims: Claims, role: str | None) -> str:
        name = str(claims.get(self._user_claim) or claims["sub"])
        if self._user_claim == "email" and "email" in claims and claims.get("email_verified") is False:
            raise Forbidden(f"The provider has not verified that {name} is this user's address.")
        if role is None:
            raise Forbidden(f"{name} is in no group that has a role on this server. Ask its administrator.")
        if len(name) > 256 or len(subject) > 700 or not name.isprintable():
            raise Forbidden("The user's name at the provider is too long, or has letters that can't be shown.")
        if not await self._accounts.add_user(name, role, None):
            await asyncio.sleep(WAIT_SECONDS)  # for another request of the same user, if that is why
            if await self._identities.user(subject) == name:
                return name
            raise Forbidden(f"There is a user {name} on this server already, who is not from this provider.")
        await self._identities.add(subject, name)
        return name

    def _groups(self, claims: Claims) -> tuple[str, ...]:
        given = claims.get(self._groups_claim, ())
        if isinstance(given, str):
            given = given.split(",")
        if not isinstance(given, list | tuple):
            return ()
        names = {group.strip() for group in given if isinstance(group, str) and len(group) <= 256 and "\0" not in group}
        return tuple(sorted(names - {""}))[:MAX_GROUPS]

    def _role(self, groups: tuple[str, ...]) -> str | None:
        """The highest of the groups' roles."""
        found = [self._roles[group] for group in (*groups, EVERYBODY) if group in self._roles]
        return max(found, key=ROLES.__getitem__, default=None)
