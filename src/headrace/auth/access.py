"""What grants add to roles, and what they leave of them.

Without `--grants` a role counts on the whole server, and a grant adds to it on one object, or on all that is in a
workspace. With it, a viewer or an editor has no right on any object but by grants; an editor may still make experiments
and models in the default workspace, and manages those. Another workspace is entered by who has any grant in it, and
things are made in it by who may edit it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from weakref import WeakSet

from headrace.auth.accounts import Accounts
from headrace.auth.authenticator import Authenticator
from headrace.auth.objects import (
    EXPERIMENT_OF,
    FIXED,
    GRANTED_IN_WORKSPACE,
    OPTIONAL,
    ObjectRef,
    Target,
    model_key,
    words,
    workspaces_of_datasets,
    workspaces_of_experiments,
)
from headrace.auth.principals import PERMISSIONS, Principal, Right
from headrace.entities import DEFAULT_WORKSPACE, WORKSPACES_FOLDER
from headrace.errors import Forbidden, NotFound

KEPT = 100_000
_KNOWN_THEN_ANEW = (False, True)  # what reaches nobody may have been granted a moment ago
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

    def __init__(
        self, accounts: Accounts, authenticator: Authenticator, only_granted: bool, workspaces: bool = False
    ) -> None:
        self._accounts, self._authenticator = accounts, authenticator
        self._only_granted, self.workspaces = only_granted, workspaces
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
        if target.creates and self.workspaces:
            return True
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

    async def check_entry(self, who: Principal, workspace: str) -> None:
        """Check that somebody whose rights are limited has a grant in the workspace. Raises NotFound, as if there were
        none of that name; Unavailable."""
        if workspace == DEFAULT_WORKSPACE:
            return
        before = model_key(workspace, "")
        for anew in _KNOWN_THEN_ANEW:
            for kind, name in await self.granted(who, anew):
                if (kind == "workspace" and name == workspace) or (kind == "model" and name.startswith(before)):
                    return
        names = list(grantees(who.user, who.groups))
        if not await self._accounts.store.rows(GRANTED_IN_WORKSPACE(workspace=workspace, grantees=names)):
            raise NotFound(f"Workspace '{workspace}' not found")

    async def right_in(self, who: Principal, workspace: str) -> Right:
        """What is granted to them on all that is in the workspace."""
        return (await self.granted(who)).get(("workspace", workspace), Right.OPEN)

    async def check_making(self, who: Principal, right: Right, workspace: str) -> None:
        """Check that they may make something in the workspace. Raises Forbidden, Unavailable."""
        if workspace == DEFAULT_WORKSPACE and who.role >= right:
            return
        for anew in _KNOWN_THEN_ANEW:
            if (await self.granted(who, anew)).get(("workspace", workspace), Right.OPEN) >= right:
                return
        raise _needs(who, right, f"workspace {workspace}")

    async def check(self, who: Principal, right: Right, refs: Iterable[ObjectRef], workspace: str) -> None:
        """Check that every object is granted to them. `workspace`: where those are that a name stands for.

        Raises Forbidden, NotFound, Unavailable.
        """
        refs = list(refs)
        for ref in refs:
            if ref.kind == "workspace":
                await self.check_entry(who, ref.id)
        by_grant = [each for each in refs if not self.allows_by_role(who, each.right or right)]
        refs = [ref for ref in by_grant if ref.kind != "workspace"]
        for anew in _KNOWN_THEN_ANEW:
            refused = await self._refused(await self.granted(who, anew), right, refs, workspace)
            if refused is None:
                return
        assert refused is not None
        if refused.kind == "experiment-name":  # as if there were none: names of others' are not told
            raise NotFound(f"Could not find experiment with name '{refused.id}'")
        raise _needs(who, refused.right or right, words(refused))

    async def experiments_of(self, refs: Iterable[ObjectRef], workspace: str) -> dict[ObjectRef, tuple[str, ...]]:
        """The experiments of those runs, traces, logged models, datasets and names that there are."""
        refs = [ref.alone() for ref in refs]
        known = {ref: self._experiments[ref] for ref in refs if ref in self._experiments}
        unknown: dict[str, list[str]] = {}
        for ref in refs:
            if ref.kind in EXPERIMENT_OF and ref not in known:
                unknown.setdefault(ref.kind, []).append(ref.id)
        for kind, ids in unknown.items():
            found = EXPERIMENT_OF[kind](ids=ids, workspace=workspace)
            for object_id, experiment in await self._accounts.store.rows(found):
                ref = ObjectRef(kind, object_id)
                known[ref] = (*known.get(ref, ()), str(experiment))
            if kind in FIXED:
                self._experiments |= {ref: known[ref] for ref in known if ref.kind == kind}
        if len(self._experiments) > KEPT:
            self._experiments.clear()
        return known

    async def _refused(
        self, grants: Grants, right: Right, refs: Sequence[ObjectRef], workspace: str
    ) -> ObjectRef | None:
        """The first of the objects that the grants don't reach."""
        experiments = await self.experiments_of(refs, workspace)
        experiments |= {ref.alone(): (ref.id,) for ref in refs if ref.kind == "experiment"}
        homes = await self._homes(grants, refs, experiments)
        for ref in refs:
            if ref.kind == "model":
                of_objects = [("model", model_key(workspace, ref.id))]
                of_workspaces = [("workspace", workspace)] if self.workspaces else []
            else:
                numbers = experiments.get(ref.alone(), ())
                if ref.kind in OPTIONAL and not numbers:
                    continue
                of_objects = [("experiment", each) for each in numbers]
                places = [ref.id] if ref.kind == "dataset" else numbers
                of_workspaces = [("workspace", homes[place]) for place in places if place in homes]
            on_each = min((grants.get(key, Right.OPEN) for key in of_objects), default=Right.OPEN)
            held = max(on_each, *(grants.get(key, Right.OPEN) for key in of_workspaces), Right.OPEN)
            if held < (ref.right or right):
                return ref
            if ref.path is not None and not self._is_there(ref.path, homes.get(ref.id), workspace):
                return ref
        return None

    def _is_there(self, path: str, home: str | None, workspace: str) -> bool:
        """Whether a path of artifacts that names an experiment is one of the request's workspace."""
        if self.workspaces:
            return home == workspace
        return not path.startswith(f"{WORKSPACES_FOLDER}/")

    async def _homes(
        self, grants: Grants, refs: Sequence[ObjectRef], experiments: dict[ObjectRef, tuple[str, ...]]
    ) -> dict[str, str]:
        """experiment or dataset -> its workspace, where that matters."""
        asks = any(kind == "workspace" for kind, _ in grants) or any(ref.path is not None for ref in refs)
        if not self.workspaces or not asks:
            return {}
        datasets = [ref.id for ref in refs if ref.kind == "dataset"]
        named = {each for ref in refs if ref.kind != "dataset" for each in experiments.get(ref.alone(), ())}
        of_datasets = await workspaces_of_datasets(self._accounts.store, datasets) if datasets else {}
        return of_datasets | await workspaces_of_experiments(self._accounts.store, named)

    async def granted(self, who: Principal, anew: bool = False) -> Grants:
        """What is granted to them. Raises Unavailable."""
        if self._generation != self._authenticator.generation:
            self._generation = self._authenticator.generation
            self._grants.clear()
            self._experiments.clear()
        key = grantees(who.user, who.groups)
        if anew or key not in self._grants:
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


def _needs(who: Principal, right: Right, what: str) -> Forbidden:
    permission = next(name for name, each in PERMISSIONS.items() if each >= right)
    return Forbidden(
        f"{who.user} may not do that: it needs the permission {permission} on the {what}. "
        "Who manages it, or an administrator, can give it: `headrace user grant`."
    )


def forget_grants() -> None:
    """A handler has moved or dropped grants: this process reads them again; others see that the version has moved."""
    for access in _ALL:
        access.forget()


def grantees(user: str, groups: Iterable[str]) -> tuple[str, ...]:
    """The names under which grants reach somebody."""
    return (f"user:{user}", *(f"group:{group}" for group in groups))
