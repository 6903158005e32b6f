"""Workspaces (`--enable-workspaces`): a request works in the one that its header names, and reaches nothing outside.

Experiments, registered models and evaluation datasets say themselves in which workspace they are, and the statements
that find them by name take :workspace. All else belongs to an experiment: the objects that a message names, by the
endpoint's target, must be in the request's workspace. Experiments move when a workspace is deleted, so that nothing
of this is remembered.

Source: mlflow/server/workspace_helpers.py, WorkspaceAwareSqlAlchemyStore.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import unquote, urlsplit

from headrace.api.decode import decode, rewrite
from headrace.api.endpoint import Endpoint, Match
from headrace.api.message import Message
from headrace.api.workspace_header import workspace_of
from headrace.asgi.types import Scope
from headrace.auth.objects import (
    EXPERIMENT_OF,
    IS_WORKSPACE,
    NOTHING,
    ArtifactFolder,
    Both,
    ObjectRef,
    OneOf,
    SourceRun,
    Target,
    Workspace,
    workspaces_of_datasets,
    workspaces_of_experiments,
)
from headrace.db.database import Database
from headrace.entities import DEFAULT_WORKSPACE, WORKSPACES_FOLDER
from headrace.errors import Declined, Forbidden, InvalidParameter, NotFound

_DECODINGS = 10
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_RESERVED = frozenset({"workspaces", "api", "ajax-api", "static-files"})
# What an endpoint may work on that names no object: its statements take :workspace.
_BY_WORKSPACE = frozenset({
    "experiments", "experiment_tags", "registered_models", "registered_model_tags", "registered_model_aliases",
    "model_versions", "model_version_tags",
})  # fmt: skip
# kinds that are found by name in a workspace
_NAMED = frozenset({"experiment-name", "model", "model-version"})
# what stock says where there is none
_NOT_FOUND = {
    "experiment": "No Experiment with id={} exists",
    "run": "Run with id={} not found",
    "trace": "Trace with ID {} is not found.",
    "new-trace": "Trace with ID '{}' not found.",
    "logged-model": "Logged model with ID '{}' not found.",
    "dataset": "Evaluation dataset with id '{}' not found",
}

# it stands for those that are left out, of a request that must name one
_NO_EXPERIMENT = "-1"


class Workspaces:
    """For one worker of a server with workspaces."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def enter(self, scope: Scope, endpoint: Endpoint, message: Message) -> str:
        """The workspace of a request, once all that its message names is known to be in it, or not to be at all.

        What is about no object, such as server-info, is the same in all, there or not. Raises NotFound,
        InvalidParameter, and Declined where only stock knows what of it the workspace shows.
        """
        workspace = workspace_of(scope)
        if endpoint.target is NOTHING:
            return workspace
        if workspace != DEFAULT_WORKSPACE:
            check_name(workspace)
            if not await self._database.rows(IS_WORKSPACE(name=workspace)):
                raise NotFound(f"Workspace '{workspace}' not found")
        named = _named(endpoint.target, message)
        if named:
            await self._check(workspace, named)
        elif not endpoint.tables <= _BY_WORKSPACE and not endpoint.target.keeps_to_workspace:
            await self._leave_out_others(workspace, message)
        return workspace

    async def _leave_out_others(self, workspace: str, message: Message) -> None:
        """Of a search in several experiments, those elsewhere are left out (_filter_experiment_ids); in none of them it
        finds nothing."""
        if "experiment_ids" not in message.__struct_fields__:
            raise Declined("what of this is in the workspace")
        asked: list[str] = [str(each) for each in message.experiment_ids]  # type: ignore[attr-defined]
        homes = await self._homes("experiment", asked)
        here = [each for each in asked if homes.get(each) == workspace]
        message.experiment_ids = here or [_NO_EXPERIMENT] * bool(asked)  # type: ignore[attr-defined]

    async def _check(self, workspace: str, refs: Iterable[ObjectRef]) -> None:
        by_kind: dict[str, list[str]] = {}
        for ref in refs:
            if ref.kind not in _NAMED and not (ref.path or "").startswith(f"{WORKSPACES_FOLDER}/"):
                by_kind.setdefault(ref.kind, []).append(ref.id)
        for kind, ids in by_kind.items():
            homes = await self._homes(kind, ids)
            for each in ids:
                if homes.get(each, workspace) != workspace:
                    raise NotFound(_NOT_FOUND[kind].format(each))

    async def _homes(self, kind: str, ids: list[str]) -> dict[str, str]:
        """object -> workspace, of those that there are."""
        if kind == "dataset":
            return await workspaces_of_datasets(self._database, ids)
        if kind == "experiment":
            return await workspaces_of_experiments(self._database, ids)
        rows = await self._database.rows(EXPERIMENT_OF[kind](ids=ids))
        experiments = {str(key): str(experiment) for key, experiment in rows}
        homes = await workspaces_of_experiments(self._database, experiments.values())
        return {each: homes[experiment] for each, experiment in experiments.items() if experiment in homes}


def in_workspace(path: str, workspace: str | None) -> str:
    """Where a client's path is, below the server's root; None: the server has no workspaces.

    Those of a workspace are below workspaces/NAME/, of `default` anywhere else. Raises InvalidParameter for another's.
    Source: handlers._get_workspace_scoped_repo_path_if_enabled.
    """
    if workspace is None:
        return path
    first, _, rest = path.partition("/")
    if first == WORKSPACES_FOLDER:
        named = rest.partition("/")[0]
        if not named:
            raise InvalidParameter("Artifact paths prefixed with 'workspaces/' must include a workspace name.")
        if named != workspace:
            raise InvalidParameter(
                f"Artifact path targets workspace '{named}' but the workspace specified in the request is "
                f"'{workspace}'."
            )
        return path
    if workspace == DEFAULT_WORKSPACE:
        return path
    return f"{WORKSPACES_FOLDER}/{workspace}/{path}" if path else f"{WORKSPACES_FOLDER}/{workspace}"


def for_stock(match: Match, scope: Scope, body: bytes) -> bytes:
    """The body of a request on its way to stock, which may name a folder of artifacts: none of another workspace.

    Stock (_get_workspace_scoped_repo_path_if_enabled) looks at how a path begins, not at where it leads: in the default
    workspace `./workspaces/NAME`, `workspaces` itself and `.` are everybody's. What a query or a body names is written
    anew, as it was looked at. Raises InvalidParameter.
    """
    if not isinstance(match.endpoint.target, ArtifactFolder):
        return body
    path = match.parameters.get("path")
    if path is None:
        message = decode(match, scope, body, None)
        path = getattr(message, "path", None)
        body = rewrite(match, scope, message, body)
    if path is not None:
        _check_folder(str(path), workspace_of(scope), scope["method"] in ("GET", "HEAD"))
    return body


def _check_folder(path: str, workspace: str, reads: bool) -> None:
    """Raises InvalidParameter where a path, however often it is decoded, leads out of the workspace, or could name more
    than one thing to write or delete."""
    for _ in range(_DECODINGS):
        path, before = unquote(path), path
        if path == before:
            break
    else:
        raise InvalidParameter("The path is encoded too often.")
    parts = path.removesuffix("/").split("/")
    if urlsplit(path).scheme.lower() == "file" or (not reads and not {"", "."}.isdisjoint(parts)):
        raise InvalidParameter(f"Invalid path: '{path}'")
    parts = [part for part in parts if part not in ("", ".")]
    if workspace == DEFAULT_WORKSPACE and parts[:1] == [WORKSPACES_FOLDER] and parts[1:2] != [DEFAULT_WORKSPACE]:
        whose = f"workspace '{parts[1]}'" if parts[1:] else "every workspace"
        raise InvalidParameter(
            f"Artifact path targets {whose} but the workspace specified in the request is '{DEFAULT_WORKSPACE}'."
        )


def check_name(name: str) -> None:
    """WorkspaceNameValidator.validate. Raises InvalidParameter."""
    if not 2 <= len(name) <= 63:
        raise InvalidParameter(f"Workspace name '{name}' must be between 2 and 63 characters.")
    if not _NAME.fullmatch(name):
        raise InvalidParameter(
            f"Workspace name '{name}' must match the pattern ^[a-z0-9]([-a-z0-9]*[a-z0-9])?$ "
            "(lowercase alphanumeric with optional internal hyphens)."
        )
    if name in _RESERVED:
        raise InvalidParameter(f"Workspace name '{name}' is reserved and cannot be used.")


def _named(target: Target, message: Message) -> list[ObjectRef]:
    """The objects that a message names; what only grants ask for, that it names any, does not matter here."""
    if isinstance(target, ArtifactFolder | Workspace):  # in whose workspace it is says its path (in_workspace)
        return []
    if isinstance(target, SourceRun):  # stock takes any for logged models, and has its own words for versions
        return []
    if isinstance(target, Both | OneOf):
        return [ref for each in target.targets for ref in _named(each, message)]
    try:
        return target.objects(message)
    except Forbidden:
        return []
