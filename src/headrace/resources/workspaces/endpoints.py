"""Endpoints of workspaces.

Source: handlers._list_workspaces_handler and those after it, mlflow/store/workspace/sqlalchemy_store.py. Declined:
locations that stock must look at.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import msgspec

from headrace.api.endpoint import Call, Response, endpoint
from headrace.api.workspaces import check_name
from headrace.auth.access import forget_grants, grantees
from headrace.auth.objects import OneWorkspace, Workspace, model_key
from headrace.auth.principals import Right
from headrace.db.database import Database, Duplicate, GuardFailed
from headrace.db.own_tables import NEXT_VERSION
from headrace.db.query import Runnable
from headrace.entities import DEFAULT_WORKSPACE
from headrace.errors import AlreadyExists, Declined, InvalidParameter, InvalidState, NotFound
from headrace.resources import validation as valid
from headrace.resources.evaluation_datasets import sql as dataset_sql
from headrace.resources.experiments.removal_sql import REST_OF_EXPERIMENT, REST_OF_MODELS, REST_OF_RUNS
from headrace.resources.runs.records import PLAIN_LOCATION
from headrace.resources.traces import change_sql as trace_sql
from headrace.resources.traces.deletion import AT_ONCE as TRACES_AT_ONCE
from headrace.resources.workspaces import messages, sql

PATH = "3.0/mlflow/workspaces"
ONE = f"{PATH}/{{workspace_name}}"
MODES = ("SET_DEFAULT", "CASCADE", "RESTRICT")
_RETENTION = re.compile(r"[1-9][0-9]*[mhd]", re.ASCII)
_MAX_RETENTION = 32  # the column's
RUNS_AT_ONCE = 20  # of a statement, which PostgreSQL must end in 20 s: it deletes 1,000,000 points of metrics in 1 s
_PLAIN_LENGTH = 500  # of a location; what stock takes more of is a setting


@endpoint("GET", PATH, Right.SIGNED_IN, Workspace(), sql.LIST)
async def list_workspaces(call: Call, message: messages.ListWorkspaces) -> object:
    """SqlAlchemyStore.list_workspaces: by name; with --grants those in which any reaches who asks."""
    who = call.sender
    listed = sql.LIST() if who is None else sql.LIST_GRANTED(grantees=list(grantees(who.user, who.groups)))
    return {"workspaces": [_workspace(row) for row in await call.db.rows(listed)]}


@endpoint("GET", ONE, Right.READ, OneWorkspace("workspace_name"), sql.GET)
async def get_workspace(call: Call, message: messages.GetWorkspace) -> object:
    """SqlAlchemyStore.get_workspace."""
    name = message.workspace_name
    if name != DEFAULT_WORKSPACE:
        check_name(name)
    rows = await call.db.rows(sql.GET(name=name))
    if not rows:
        raise _unknown(name)
    return {"workspace": _workspace(rows[0])}


@endpoint("POST", PATH, Right.ADMIN, Workspace(), sql.CREATE)
async def create_workspace(call: Call, message: messages.CreateWorkspace) -> object:
    """SqlAlchemyStore.create_workspace."""
    name = message.name
    if name == DEFAULT_WORKSPACE:
        raise InvalidParameter(f"The '{DEFAULT_WORKSPACE}' workspace is reserved and cannot be created")
    check_name(name)
    try:
        rows = await call.db.change(sql.CREATE(name=name, **_fields(message)))
    except Duplicate:
        raise AlreadyExists(f"Workspace '{name}' already exists.") from None
    return Response(msgspec.json.encode({"workspace": _workspace(rows[0])}), 201)


@endpoint("PATCH", ONE, Right.ADMIN, Workspace(), sql.UPDATE)
async def update_workspace(call: Call, message: messages.UpdateWorkspace) -> object:
    """SqlAlchemyStore.update_workspace."""
    name = message.workspace_name
    if name != DEFAULT_WORKSPACE:
        check_name(name)
    fields = _fields(message)
    if all(value is None for value in fields.values()):
        raise InvalidParameter("Workspace update must have at least one key")
    try:
        rows = await call.db.change(sql.UPDATE(name=name, **fields))
    except GuardFailed:
        raise _unknown(name) from None
    return {"workspace": _workspace(rows[0])}


_CHANGES = (sql.DELETE, sql.DELETE_UNUSED, *sql.MOVES, *sql.DELETE_ROOTS, sql.DELETE_RUNS, sql.DELETE_LOGGED_MODELS)
# not REST_OF_EXPERIMENT: of those tables it takes rows by the experiment alone, whatever else their columns are
_REST = (*REST_OF_RUNS, *REST_OF_MODELS, *dataset_sql.DELETE_ALL, trace_sql.DELETE)


@endpoint("DELETE", ONE, Right.ADMIN, Workspace(), sql.GET, sql.USED, sql.CONFLICTS, *_CHANGES, *_REST, query=True)
async def delete_workspace(call: Call, message: messages.DeleteWorkspace) -> object:
    """SqlAlchemyStore.delete_workspace."""
    name, mode = message.workspace_name, message.mode
    if name == DEFAULT_WORKSPACE:
        raise InvalidParameter(f"The '{DEFAULT_WORKSPACE}' workspace is reserved and cannot be deleted")
    check_name(name)
    if mode not in MODES:
        raise InvalidParameter(f"Invalid deletion mode '{mode}'. Must be one of: {', '.join(MODES)}")
    if not await call.db.rows(sql.GET(name=name)):
        raise _unknown(name)
    try:
        if mode == "SET_DEFAULT":
            await _check_conflicts(call, name)
            moves = [move(name=name, target=DEFAULT_WORKSPACE) for move in sql.MOVES]
            await call.db.change(sql.DELETE(name=name), *_grants(call, name, moved=True), *moves)
        elif mode == "CASCADE":
            await call.db.change(sql.DELETE(name=name), *_grants(call, name), *await _all_in(call.db, name))
        else:
            await _check_unused(call, name)
            await call.db.change(sql.DELETE_UNUSED(name=name), *_grants(call, name))
    except Duplicate:  # secrets, or what was made a moment ago
        raise InvalidState(
            f"Cannot delete workspace '{name}': resources in this workspace conflict with existing resources in the "
            f"'{DEFAULT_WORKSPACE}' workspace. Resolve naming conflicts before deleting."
        ) from None
    except GuardFailed:
        raise InvalidState(f"Cannot delete workspace '{name}': it was changed meanwhile. Try again.") from None
    forget_grants()
    return Response(b"", 204)


def _grants(call: Call, name: str, *, moved: bool = False) -> list[Runnable]:
    """What becomes of the grants in a workspace that is deleted; `moved`: what is in it moves to the default one."""
    if not call.settings.protected:
        return []
    place = {"name": name, "before": model_key(name, "")}
    moves = [sql.DROP_GRANTS_OF_MOVED(**place), sql.MOVE_GRANTS(**place)] if moved else []
    return [*moves, sql.DROP_GRANTS(**place), NEXT_VERSION()]


async def _all_in(db: Database, name: str) -> list[Runnable]:
    """What deletes all that is in it. Stock leaves inputs, their tags and links between entities behind."""
    statements: list[Runnable] = []
    of_it = (sql.EXPERIMENTS, sql.RUNS, sql.LOGGED_MODELS, sql.TRACES, sql.EVALUATION_DATASETS)
    found = await db.rows_of(*(each(name=name) for each in of_it))
    experiments, runs, models, traces, datasets = ([row[0] for row in rows] for rows in found)
    for ids in _portions(traces, TRACES_AT_ONCE):
        statements += [each(trace_ids=ids) for each in (trace_sql.LOCK, trace_sql.DELETE, sql.UNLINK_TRACES)]
    for ids in _portions(runs, RUNS_AT_ONCE):
        statements += [each(ids=ids) for each in (*REST_OF_RUNS, sql.DELETE_RUNS)]
    for ids in _portions(models, RUNS_AT_ONCE):
        statements += [each(ids=ids) for each in (*REST_OF_MODELS, sql.DELETE_LOGGED_MODELS)]
    for dataset in datasets:
        statements += [each(dataset_id=dataset) for each in dataset_sql.DELETE_ALL]
    for number in experiments:
        statements += [each(experiment_id=number, experiment_text=str(number)) for each in REST_OF_EXPERIMENT]
    return statements + [each(name=name) for each in sql.DELETE_ROOTS]


def _portions(ids: list[str], most: int) -> Iterator[list[str]]:
    return (ids[begin : begin + most] for begin in range(0, len(ids), most))


async def _check_unused(call: Call, name: str) -> None:
    """Raises InvalidState where anything is in it."""
    for table, count in await call.db.rows(sql.USED(name=name)):
        raise InvalidState(
            f"Cannot delete workspace '{name}': table '{table}' still contains {count} resource(s). "
            "Remove or reassign them before deleting the workspace."
        )


async def _check_conflicts(call: Call, name: str) -> None:
    """SqlAlchemyStore._check_set_default_conflicts. Raises InvalidState."""
    found = await call.db.rows(sql.CONFLICTS(name=name, target=DEFAULT_WORKSPACE))
    if found:
        details = "\n".join(f"  - {table}: {each!r}" for table, each in found)
        raise InvalidState(
            f"Cannot reassign resources from workspace '{name}' to '{DEFAULT_WORKSPACE}': the following names already "
            f"exist in the default workspace and would cause conflicts:\n{details}\n"
            "Rename or remove the conflicting resources before retrying."
        )


def _fields(message: messages.Described) -> dict[str, str | None]:
    """The columns that the message says. Raises InvalidParameter, Declined."""
    archival = message.trace_archival_config or messages.TraceArchivalConfig()
    description = message.description
    return {
        "description": None if description is None else valid.without_nul(description, "description"),
        "root": _location(message.default_artifact_root),
        "location": _archive(archival.location),
        "retention": _retention(archival.retention),
    }


def _location(given: str | None) -> str | None:
    """handlers._validate_workspace_default_artifact_root. Raises Declined for what stock must look at."""
    location = given.strip() if given is not None else None
    if not location:
        return location
    plain = len(location) <= _PLAIN_LENGTH and re.match(PLAIN_LOCATION, location)
    parts = urlsplit(location) if plain else None
    local = parts is not None and not parts.netloc and parts.scheme in ("", "file", "mlflow-artifacts")
    if parts is None or not (local or (parts.netloc and parts.scheme in ("s3", "gs"))):
        raise Declined("a location that stock must look at")
    return location


def _archive(given: str | None) -> str | None:
    """handlers._validate_workspace_trace_archival_location. Raises Declined for what stock must look at."""
    location = given.strip() if given is not None else None
    if location and not re.match(r"s3://[^/?#;\\\s]+(/[^?#;\\\s]*)?$", location):
        raise Declined("a location that stock must look at")
    return location


def _retention(given: str | None) -> str | None:
    """validation._validate_trace_archival_retention_string."""
    retention = given.strip() if given is not None else None
    if not retention:
        return retention
    wrong = "Invalid value for 'trace_archival_config.retention'. "
    if len(retention) > _MAX_RETENTION:
        raise InvalidParameter(f"{wrong}Maximum length is {_MAX_RETENTION} characters.")
    if not _RETENTION.fullmatch(retention):
        raise InvalidParameter(
            f"{wrong}Expected a duration in the form `<int><unit>`, where unit is one of 'm', 'h', or 'd' "
            "(for example '30d' or '12h')."
        )
    return retention


def _workspace(row: Any) -> dict[str, object]:
    """Workspace.to_proto."""
    name, description, root, location, retention = row
    archival = {"location": location, "retention": retention}
    workspace: dict[str, object] = {"name": name, "description": description, "default_artifact_root": root}
    workspace["trace_archival_config"] = {key: each for key, each in archival.items() if each is not None} or None
    return {key: each for key, each in workspace.items() if each is not None}


def _unknown(name: str) -> NotFound:
    return NotFound(f"Workspace '{name}' not found")
