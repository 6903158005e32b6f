"""Users of a provider of single sign-on: made at their first login, with the role that their groups have.

A name says nothing about who somebody is: a user is found by the provider's issuer and subject, and nobody becomes a
user who was there before (set up by an administrator, say) by having the same name.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Collection, Mapping
from typing import Any

from headrace.auth.accounts import Accounts, User
from headrace.auth.identities import Identities
from headrace.auth.principals import ADMIN, JOBS, ROLES
from headrace.errors import Forbidden, Unauthenticated

Claims = dict[str, Any]

EVERYBODY = "*"
MAX_GROUPS = 200
WAIT_SECONDS = 0.5
_NOT_IN_DATABASES = re.compile("[\0\ud800-\udfff]")


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

    async def user(self, claims: Claims, is_login: bool = True) -> User:
        """The user of verified claims, as they are now at the provider.

        What is not a login is a program's token, whose role and groups are those of its own claims: it may be older
        than a login, or say nothing of groups, and must not change what the user's sessions and tokens may do.

        Raises Forbidden for one who has no role here, Unauthenticated for one who was disabled, Unavailable.
        """
        subject = f"{claims['iss']} {claims['sub']}"
        if len(subject) > 700 or _NOT_IN_DATABASES.search(subject):
            raise Forbidden("The user's subject at the provider is too long, or has characters that can't be stored.")
        every = self._groups(claims)
        role = self._role(every)
        groups = tuple(sorted(sorted(every, key=lambda group: (group not in self._roles, group))[:MAX_GROUPS]))
        name = await self._identities.user(subject)
        if name is None:
            is_login = True
            name = await self._make(subject, claims, role)
        user = await self._accounts.user(name)
        if user is None or user.disabled_at is not None:
            raise Unauthenticated(f"The user {name} was disabled on this server.")
        if role is None:
            raise Forbidden(f"{name} is in no group that has a role on this server. Ask its administrator.")
        if is_login and user.role != role:
            await self._accounts.set_role(name, role)
        if is_login and user.groups != groups:
            await self._accounts.set_groups(name, groups)
        return User(name, role, user.password, None, user.sessions_after, user.created_at, groups)

    async def _make(self, subject: str, claims: Claims, role: str | None) -> str:
        given = claims.get(self._user_claim)
        if isinstance(given, bool) or not isinstance(given, str | int):
            given = ""
        name = str(given or claims["sub"]).strip()
        # Cognito and load balancers say it in text
        is_verified = str(claims.get("email_verified", True)).lower() in ("true", "1", "none")
        if self._user_claim == "email" and given and not is_verified:
            raise Forbidden(f"The provider has not verified that {name} is this user's address.")
        if role is None:
            raise Forbidden(f"{name} is in no group that has a role on this server. Ask its administrator.")
        if not name or len(name) > 256 or not name.isprintable():
            raise Forbidden("The user's name at the provider is too long, or has letters that can't be shown.")
        if name in (ADMIN, JOBS):  # those whom the log and the commands mean by it
            raise Forbidden(f"{name} is not a name for a user of a provider: this server has a meaning for it.")
        if not await self._accounts.add_user(name, role, None):
            await asyncio.sleep(WAIT_SECONDS)  # for another request of the same user, if that is why
            if await self._identities.user(subject) == name:
                return name
            raise Forbidden(f"There is a user {name} on this server already, who is not from this provider.")
        await self._identities.add(subject, name)
        return name

    def _groups(self, claims: Claims) -> set[str]:
        given = claims.get(self._groups_claim, ())
        if isinstance(given, str):
            given = given.split(",")
        if not isinstance(given, list | tuple):
            return set()
        names = (group.strip() for group in given if isinstance(group, str))
        return {name for name in names if 0 < len(name) <= 256 and not _NOT_IN_DATABASES.search(name)}

    def _role(self, groups: Collection[str]) -> str | None:
        """The highest of the groups' roles."""
        found = [self._roles[group] for group in (*groups, EVERYBODY) if group in self._roles]
        return max(found, key=ROLES.__getitem__, default=None)
