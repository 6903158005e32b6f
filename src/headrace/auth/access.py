"""What grants add to roles, and what they leave of them.

Without `--grants` a role counts on the whole server, and a grant adds to it on one object. With it, a viewer or an
editor has no right on any object but by grants; an editor may still make experiments and models, and manages those.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from weakref import WeakSet

from headrace.auth.accounts import Accounts
from headrace.auth.authenticator import Authenticator
from headrace.auth.objects import EXPERIMENT_OF, FIXED, OPTIONAL, ObjectRef, Target, words
from headrace.auth.principals import PERMISSIONS, Principal, Right
from headrace.errors import Forbidden, NotFound

KEPT = 100_000
# right -> what to ask for
_NEEDS = {
    Right.READ: "the role viewer",
    Right.EDIT: "the role editor",
    Right.MANAGE: "the role editor",
    Right.ADMIN: "the role admin",
}

Grants = dict[tuple[str, str], Right]
_ALL: WeakSet[Access] = WeakSet()


class Access:
    """For one worker."""

    def __init__(self, accounts: Accounts, authenticator: Authenticator, only_granted: bool) -> None:
        self._accounts, self._authenticator = accounts, authenticator
        self._only_granted = only_granted
        self._experiments: dict[ObjectRef, tuple[str, ...]] = {}  # of what moves by `headrace runs move` alone
        self._grants: dict[tuple[str, ...], Grants] = {}
        self._generation = -1
        _ALL.add(self)

    def is_limited(self, who: Principal) -> bool:
        """Whether they may see no more than what is granted to them."""
        return self._only_granted and who.role < Right.ADMIN

    def allows_by_role(self, who: Principal, right: Right) -> bool:
        """Whether their role is enough for any object; if not, `needs_object_check` says more."""
        return right <= who.right and not self.is_limited(who)

    def needs_object_check(self, who: Principal, right: Right, target: Target) -> bool:
        """Whether the objects of the message must be granted. Raises Forbidden where no grant helps."""
        if right <= Right.SIGNED_IN:
            return False
        if who.most < right or right is Right.ADMIN:
            return self._require(who, right)
        if self.is_limited(who):
            if target.creates:
                return self._require(who, right)
            if target.filtered:
                return False
            if not target.checked:
                raise Forbidden(
                    f"{who.user} may not do that: it would show or change more than what is granted to them. "
                    "It needs the role admin."
                )
            return True
        if who.role >= right or not target.checked:
            return self._require(who, right)
        return True

    def forget(self) -> None:
        """Read the grants again."""
        self._grants.clear()

    async def check(self, who: Principal, right: Right, refs: Iterable[ObjectRef]) -> None:
        """Check that every object is granted to them. Raises Forbidden, NotFound, Unavailable."""
        refs = list(refs)
        if await self._refused(await self._granted(who), right, refs) is None:
            return
        self._grants.pop(grantees(who), None)  # it may have been granted a moment ago
        if (refused := await self._refused(await self._granted(who), right, refs)) is not None:
            if refused.kind == "experiment-name":  # as if there were none: names of others' are not told
                raise NotFound(f"Could not find experiment with name '{refused.id}'")
            needed = refused.right or right
            permission = next(name for name, each in PERMISSIONS.items() if each >= needed)
            raise Forbidden(
                f"{who.user} may not do that: it needs the permission {permission} on the {words(refused)}. "
                "Who manages it, or an administrator, can give it: `headrace user grant`."
            )

    async def experiments_of(self, refs: Iterable[ObjectRef]) -> dict[ObjectRef, tuple[str, ...]]:
        """The experiments of those runs, traces, logged models, datasets and names that there are."""
        refs = [ref._replace(right=None) for ref in refs]
        known = {ref: self._experiments[ref] for ref in refs if ref in self._experiments}
        unknown: dict[str, list[str]] = {}
        for ref in refs:
            if ref.kind in EXPERIMENT_OF and ref not in known:
                unknown.setdefault(ref.kind, []).append(ref.id)
        for kind, ids in unknown.items():
            for object_id, experiment in await self._accounts.store.rows(EXPERIMENT_OF[kind](ids=ids)):
                ref = ObjectRef(kind, object_id)
                known[ref] = (*known.get(ref, ()), str(experiment))
            if kind in FIXED:
                self._experiments |= {ref: known[ref] for ref in known if ref.kind == kind}
        if len(self._experiments) > KEPT:
            self._experiments.clear()
        return known

    async def _refused(self, grants: Grants, right: Right, refs: Sequence[ObjectRef]) -> ObjectRef | None:
        """The first of the objects that the grants don't reach."""
        experiments = await self.experiments_of(refs)
        for ref in refs:
            if ref.kind in ("experiment", "model"):
                keys = [(ref.kind, ref.id)]
            else:
                keys = [("experiment", each) for each in experiments.get(ref._replace(right=None), ())]
                if ref.kind in OPTIONAL and not keys:
                    continue
            if max((grants.get(key, Right.OPEN) for key in keys), default=Right.OPEN) < (ref.right or right):
                return ref
        return None

    async def _granted(self, who: Principal) -> Grants:
        if self._generation != self._authenticator.generation:
            self._generation = self._authenticator.generation
            self._grants.clear()
            self._experiments.clear()
        key = grantees(who)
        if key not in self._grants:
            best: Grants = {}
            for grant in await self._accounts.grants(key):
                place = (grant.kind, grant.object)
                best[place] = max(best.get(place, Right.OPEN), PERMISSIONS[grant.permission])
            self._grants[key] = best
        return self._grants[key]

    def _require(self, who: Principal, right: Right) -> bool:
        """Nothing more to check. Raises Forbidden where the role is not enough."""
        if who.right < right:
            raise Forbidden(
                f"{who.user} may not do that: it needs {_NEEDS[right]}. Ask an administrator of this server."
            )
        return False


def forget_grants() -> None:
    """A handler has moved or dropped grants: this process reads them again; others see that the version has moved."""
    for access in _ALL:
        access.forget()


def grantees(who: Principal) -> tuple[str, ...]:
    """The names under which grants reach somebody."""
    return (f"user:{who.user}", *(f"group:{group}" for group in who.groups))
