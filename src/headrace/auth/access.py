"""What grants add to roles, and what they leave of them.

Without `--grants` a role counts on the whole server, and a grant adds to it on one object. With it, a viewer or an
editor has no right on any object but by grants; an editor may still make experiments and models, and manages those.
"""

from __future__ import annotations

from collections.abc import Iterable

from headrace.auth.accounts import Accounts
from headrace.auth.authenticator import Authenticator
from headrace.auth.objects import OBJECTS, Named
from headrace.auth.principals import PERMISSIONS, Principal, Right
from headrace.auth.routes import Rule
from headrace.errors import Forbidden

KEPT = 100_000
# right -> what to ask for
_NEEDS = {
    Right.READ: "the role viewer",
    Right.EDIT: "the role editor",
    Right.MANAGE: "the role editor",
    Right.ADMIN: "the role admin",
}
_CREATES = ("new-experiment", "new-model")
# what is not for the application, or not for it alone
_LOOKED_AT = ("page",)

Grants = dict[tuple[str, str], Right]


class Access:
    """For one worker."""

    def __init__(self, accounts: Accounts, authenticator: Authenticator, only_granted: bool) -> None:
        self._accounts, self._authenticator = accounts, authenticator
        self._only_granted = only_granted
        self._experiments: dict[Named, str] = {}  # what never moves to another experiment
        self._grants: dict[tuple[str, ...], Grants] = {}
        self._generation = -1

    def is_limited(self, who: Principal) -> bool:
        """Whether they may see no more than what is granted to them."""
        return self._only_granted and who.role < Right.ADMIN

    def plainly_allows(self, who: Principal, rule: Rule) -> bool:
        """Whether the request can go on as it is; if not, `allows` says more."""
        return (
            rule.right <= who.right
            and rule.target not in _LOOKED_AT
            and not (self._only_granted and who.role < Right.ADMIN)
            and not (rule.target == "model" and rule.right is Right.MANAGE)
        )

    def allows(self, who: Principal, rule: Rule) -> bool:
        """Whether their role is enough; if not, the objects of the request are to be looked at.

        Raises Forbidden where no grant helps.
        """
        if rule.right <= Right.SIGNED_IN:
            return True
        if who.most < rule.right or rule.right is Right.ADMIN:
            return self._require(who, rule.right)
        if self.is_limited(who):
            if rule.target in _CREATES:
                self._require(who, rule.right)
            elif rule.target not in OBJECTS:
                raise Forbidden(
                    f"{who.user} may not do that: it would show or change more than what is granted to them. "
                    "It needs the role admin."
                )
            return False
        if who.role >= rule.right or rule.target not in OBJECTS or rule.target in _CREATES:
            return self._require(who, rule.right)
        return False

    def forget(self) -> None:
        """Read the grants again."""
        self._grants.clear()

    async def check(self, who: Principal, rule: Rule, objects: Iterable[Named]) -> None:
        """That each of the objects is granted to them. Raises Forbidden, Unavailable."""
        objects = list(objects)
        if await self._refused(await self._granted(who), rule, objects) is None:
            return
        self._grants.pop(grantees(who), None)  # it may have been granted a moment ago
        if (refused := await self._refused(await self._granted(who), rule, objects)) is not None:
            permission = next(name for name, right in PERMISSIONS.items() if right >= rule.right)
            raise Forbidden(
                f"{who.user} may not do that: it needs the permission {permission} on the {_words(refused)}. "
                "Who manages it, or an administrator, can give it: `headrace user grant`."
            )

    async def _refused(self, grants: Grants, rule: Rule, objects: list[Named]) -> Named | None:
        """The first of the objects that the grants don't reach."""
        experiments = await self._experiments_of(objects)
        for each in objects:
            needed = Right.READ if rule.target == "model-source" and each.kind != "model" else rule.right
            if each.kind in ("experiment", "model"):
                key = (each.kind, each.id)
            elif each in experiments:
                key = ("experiment", experiments[each])
            elif each.kind == "experiment-name" or rule.target == "new-trace":
                continue  # it is not there, and the answer says so
            else:
                return each
            if grants.get(key, Right.OPEN) < needed:
                return each
        return None

    async def _experiments_of(self, objects: list[Named]) -> dict[Named, str]:
        """The experiments of those runs, traces, logged models and names that there are."""
        found = {each: self._experiments[each] for each in objects if each in self._experiments}
        unknown: dict[str, list[str]] = {}
        for each in objects:
            if each.kind not in ("experiment", "model") and each not in found:
                unknown.setdefault(each.kind, []).append(each.id)
        for kind, ids in unknown.items():
            for object_id, experiment in await self._accounts.experiments_of(kind, ids):
                found[Named(kind, object_id)] = str(experiment)
                if kind != "experiment-name":  # a name may be another experiment's tomorrow
                    self._experiments[Named(kind, object_id)] = str(experiment)
        if len(self._experiments) > KEPT:
            self._experiments.clear()
        return found

    async def _granted(self, who: Principal) -> Grants:
        if self._generation != self._authenticator.generation:
            self._generation = self._authenticator.generation
            self._grants.clear()
        key = grantees(who)
        if key not in self._grants:
            best: Grants = {}
            for grant in await self._accounts.grants(key):
                place = (grant.kind, grant.object)
                best[place] = max(best.get(place, Right.OPEN), PERMISSIONS[grant.permission])
            self._grants[key] = best
        return self._grants[key]

    def _require(self, who: Principal, right: Right) -> bool:
        if who.right < right:
            raise Forbidden(
                f"{who.user} may not do that: it needs {_NEEDS[right]}. Ask an administrator of this server."
            )
        return True


def grantees(who: Principal) -> tuple[str, ...]:
    """The names under which grants reach somebody."""
    return (f"user:{who.user}", *(f"group:{group}" for group in who.groups))


def _words(named: Named) -> str:
    kind = {"experiment-name": "experiment", "model": "registered model", "logged-model": "logged model"}
    return f"{kind.get(named.kind, named.kind)} {named.id}"
