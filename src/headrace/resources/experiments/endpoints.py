"""Endpoints of experiments: create, get, search, tags, rename, delete, restore."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Any

from headrace.api.endpoint import AJAX, Call, endpoint
from headrace.api.message import missing
from headrace.api.search import page_token
from headrace.api.search.ast import ExperimentSearch
from headrace.api.search.page_token import PageToken
from headrace.api.search.sql import next_page
from headrace.auth.access import forget_grants
from headrace.auth.objects import Experiment as ExperimentTarget
from headrace.auth.objects import ExperimentName, Filtered, NewExperiment
from headrace.auth.principals import Right
from headrace.clock import now_ms
from headrace.db.database import Duplicate, GuardFailed
from headrace.db.own_tables import NEXT_VERSION
from headrace.db.query import Bound, Dialect
from headrace.entities import DatasetSummary, Experiment, KeyValue
from headrace.errors import AlreadyExists, Declined, Forbidden, InvalidParameter, InvalidState, NotFound
from headrace.resources import validation as valid
from headrace.resources.assessments import made_by_runs
from headrace.resources.experiments import messages, search, sql
from headrace.resources.experiments.sql import EXPERIMENT_WIDTH
from headrace.resources.runs.endpoints import STAGES
from headrace.resources.runs.records import PLAIN_LOCATION

ID = ExperimentTarget("experiment_id")
MAX_TAG_LENGTH = 20_000
MAX_NAME_LENGTH = 500
COLUMN_LENGTH = 256  # of experiments.name: PostgreSQL holds no longer one
MAX_SEARCHED = 50_000
# SqlAlchemyStore._search_datasets
MAX_DATASETS, MAX_DATASET_EXPERIMENTS = 1_000, 20
# a client's artifact_location that means the same to whoever reads it, in a bucket or below --artifacts-destination
_PLACE = re.compile(
    r"(?=.{1,200}\Z)(?:(?:s3|gs)://[\w.-]+|mlflow-artifacts:(?=/.))(?:/(?!\.{1,2}(?:/|\Z))[\w.=+@~-]+)*/?", re.ASCII
)
# tags whose values stock reads when they are set
_READ_BY_STOCK = ("mlflow.customView.", "mlflow.trace.")


@endpoint("GET", "2.0/mlflow/experiments/get", Right.READ, ID, sql.GET)
async def get_experiment(call: Call, message: messages.GetExperiment) -> object:
    """SqlAlchemyStore.get_experiment."""
    _check_not_archiving(call)
    experiment_id = valid.experiment_id(message.experiment_id)
    experiment = await read_experiment(call, sql.GET(workspace=call.workspace, experiment_id=experiment_id))
    if experiment is None:
        raise unknown_experiment(experiment_id)
    return {"experiment": experiment}


@endpoint("GET", "2.0/mlflow/experiments/get-by-name", Right.READ, ExperimentName("experiment_name"), sql.GET_BY_NAME)
async def get_experiment_by_name(call: Call, message: messages.GetExperimentByName) -> object:
    """SqlAlchemyStore.get_experiment_by_name."""
    _check_not_archiving(call)
    name = valid.without_nul(message.experiment_name, "experiment_name")
    experiment = await read_experiment(call, sql.GET_BY_NAME(workspace=call.workspace, name=name))
    if experiment is None:
        raise NotFound(f"Could not find experiment with name '{name}'")
    return {"experiment": experiment}


@endpoint("POST", "2.0/mlflow/experiments/create", Right.EDIT, NewExperiment(), sql.CREATE, sql.TAG_NEW)
async def create_experiment(call: Call, message: messages.CreateExperiment) -> object:
    """SqlAlchemyStore.create_experiment."""
    name = _name(message.name)
    if call.settings.protected and call.db.dialect is Dialect.SQLITE:
        await _drop_grants_of_removed(call)
    if message.artifact_location:
        if call.settings.enable_workspaces:
            raise InvalidParameter("artifact_location cannot be specified when workspaces are enabled")
        if call.grantees is not None:
            raise Forbidden("With grants on, only an administrator may choose an artifact_location.")
        if not _PLACE.fullmatch(message.artifact_location) or os.environ.get("MLFLOW_ARTIFACT_LOCATION_MAX_LENGTH"):
            raise Declined("an artifact location that stock must look at")
    tags = [(valid.key(tag.key), valid.text(tag.value, MAX_TAG_LENGTH, "value")) for tag in message.tags]
    if len(dict(tags)) != len(tags):
        raise Declined("repeated tags")
    if any(key.startswith(_READ_BY_STOCK) for key, _ in tags):
        raise Declined("a tag that stock reads")
    place = {"workspace": call.workspace, "name": name}
    statements = [sql.TAG_NEW(key=key, value=value, **place) for key, value in tags]
    if not message.artifact_location:
        root = await _artifact_root(call)
        if not re.match(PLAIN_LOCATION, f"{root}0"):
            raise Declined("an artifact root that stock must read")
        statements.append(sql.LOCATE(root=root, **place))
    if call.sender is not None:
        statements.append(sql.GRANT_NEW(grantee=f"user:{call.sender.user}", **place))
    try:
        location = message.artifact_location or None
        rows = await call.db.change(sql.CREATE(now=now_ms(), artifact_location=location, **place), *statements)
    except Duplicate:
        raise _name_taken(name) from None
    return {"experiment_id": str(rows[0][0])}


async def _drop_grants_of_removed(call: Call) -> None:
    """What was granted on an experiment that is gone is nobody's on the next one with its number, whoever makes it."""
    if await call.db.rows(sql.GRANTS_OF_REMOVED()):
        await call.db.transact([sql.DROP_GRANTS_OF_REMOVED(), NEXT_VERSION()])
        forget_grants()


@endpoint("POST", "2.0/mlflow/experiments/search", Right.READ, Filtered(), sql.GET, replica=True)
@endpoint("GET", "2.0/mlflow/experiments/search", Right.READ, Filtered(), sql.GET, replica=True)
async def search_experiments(call: Call, message: messages.SearchExperiments) -> object:
    """SqlAlchemyStore._search_experiments."""
    _check_not_archiving(call)
    valid.max_results(message.max_results, MAX_SEARCHED)
    conditions = search.parse_filter(message.filter)
    order = search.parse_order(message.order_by)
    fingerprint = page_token.fingerprint("experiments", message.order_by)
    token = page_token.decode(message.page_token, fingerprint)
    asked = ExperimentSearch(
        STAGES[message.view_type], conditions, order, message.max_results, token.offset, token.after
    )
    rows = await call.db.rows(sql.search_experiments(asked, call.db.dialect, call.workspace, call.grantees))
    page = rows[: message.max_results]
    answer: dict[str, object] = {"experiments": await _with_tags(call, page)} if page else {}
    if len(rows) > len(page):
        after = next_page(rows, message.max_results, EXPERIMENT_WIDTH)
        if after is not None and None in after:
            after = None  # the offset will do
        next_token = PageToken(token.offset + message.max_results, after, fingerprint if after else "")
        answer["next_page_token"] = page_token.encode(next_token)
    return answer


@endpoint("POST", "2.0/mlflow/experiments/set-experiment-tag", Right.EDIT, ID, sql.SET_TAG)
async def set_experiment_tag(call: Call, message: messages.SetExperimentTag) -> None:
    """SqlAlchemyStore.set_experiment_tag."""
    if message.key.startswith(_READ_BY_STOCK):
        raise Declined("a tag that stock reads")
    key, value = valid.key(message.key), valid.text(message.value, MAX_TAG_LENGTH, "value")
    await _change(call, message.experiment_id, sql.SET_TAG, key=key, value=value)


@endpoint("POST", "2.0/mlflow/experiments/delete-experiment-tag", Right.EDIT, ID, sql.DELETE_TAG)
async def delete_experiment_tag(call: Call, message: messages.DeleteExperimentTag) -> None:
    """SqlAlchemyStore.delete_experiment_tag."""
    try:
        await _change(call, message.experiment_id, sql.DELETE_TAG, key=valid.without_nul(message.key, "key"))
    except GuardFailed:
        raise NotFound(f"No tag with name: {message.key} in experiment with id {message.experiment_id}") from None


@endpoint("POST", "2.0/mlflow/experiments/update", Right.MANAGE, ID, sql.RENAME)
async def update_experiment(call: Call, message: messages.UpdateExperiment) -> None:
    """SqlAlchemyStore.rename_experiment. A name that is taken is a 400 here, where stock answers 500."""
    name = _name(message.new_name)
    experiment_id = valid.experiment_id(message.experiment_id)
    try:
        await call.db.change(sql.RENAME(workspace=call.workspace, experiment_id=experiment_id, name=name, now=now_ms()))
    except Duplicate:
        raise _name_taken(name) from None
    except GuardFailed:
        await _stage_of(call, experiment_id)
        raise InvalidState("Cannot rename a non-active experiment.") from None


@endpoint("POST", "2.0/mlflow/experiments/delete", Right.MANAGE, ID, sql.DELETE, sql.DELETE_RUNS, "assessments")
async def delete_experiment(call: Call, message: messages.GetExperiment) -> None:
    """SqlAlchemyStore.delete_experiment; the assessments that its runs have made go with them."""
    experiment_id = valid.experiment_id(message.experiment_id)
    now = now_ms()
    try:
        await call.db.change(
            sql.DELETE(workspace=call.workspace, experiment_id=experiment_id, now=now),
            sql.DELETE_RUNS(experiment_id=experiment_id, now=now),
            made_by_runs.deleted_with_experiment(experiment_id),
        )
    except GuardFailed:
        if await _stage_of(call, experiment_id) != "active":
            raise unknown_experiment(experiment_id) from None
        raise


@endpoint("POST", "2.0/mlflow/experiments/restore", Right.MANAGE, ID, sql.RESTORE, sql.RESTORE_RUNS)
async def restore_experiment(call: Call, message: messages.GetExperiment) -> None:
    """SqlAlchemyStore.restore_experiment."""
    experiment_id = valid.experiment_id(message.experiment_id)
    try:
        await call.db.change(
            sql.RESTORE(workspace=call.workspace, experiment_id=experiment_id, now=now_ms()),
            sql.RESTORE_RUNS(experiment_id=experiment_id),
        )
    except GuardFailed:
        raise unknown_experiment(experiment_id) from None


@endpoint(
    "POST", "2.0/mlflow/experiments/search-datasets", Right.READ, Filtered(), "datasets", "inputs", "input_tags",
    apis=AJAX,
)  # fmt: skip
async def search_datasets(call: Call, message: messages.SearchDatasets) -> object:
    """SqlAlchemyStore._search_datasets."""
    if not message.experiment_ids:
        raise InvalidParameter("SearchDatasets request must specify at least one experiment_id.")
    if (given := len(message.experiment_ids)) > MAX_DATASET_EXPERIMENTS:
        raise InvalidParameter(
            f"SearchDatasets request cannot specify more than {MAX_DATASET_EXPERIMENTS} experiment_ids. "
            f"Received {given} experiment_ids."
        )
    experiments = valid.experiment_ids(message.experiment_ids)
    rows = await call.db.rows(sql.dataset_summaries(experiments, MAX_DATASETS, call.db.dialect, call.grantees))
    if len(rows) == MAX_DATASETS:
        raise Declined("which datasets are left out is up to stock")
    summaries = [DatasetSummary(str(number), name, digest, context or None) for number, name, digest, context in rows]
    return {"dataset_summaries": summaries} if summaries else {}


async def _artifact_root(call: Call) -> str:
    """Where the folders of new experiments lie, with a slash at its end. Source: _get_artifact_location."""
    root = call.settings.default_artifact_root
    root = root if root.endswith("/") else f"{root}/"
    if not call.settings.enable_workspaces:
        return root
    rows = await call.db.rows(sql.ROOT_OF_WORKSPACE(workspace=call.workspace))
    own = rows[0][0] if rows else None
    if own:
        return own if own.endswith("/") else f"{own}/"
    return f"{root}workspaces/{call.workspace}/"


async def read_experiment(call: Call, statement: Bound) -> Experiment | None:
    """The experiment of a statement like sql.GET; None where there is none."""
    experiment: Experiment | None = None
    for *columns, key, value in await call.db.rows(statement):
        experiment = experiment or _experiment(*columns)
        if key is not None:
            _tag(experiment, key, value)
    return experiment


async def _with_tags(call: Call, rows: Sequence[Any]) -> list[Experiment]:
    experiments = {row[0]: _experiment(*tuple(row)[:EXPERIMENT_WIDTH]) for row in rows}
    for experiment_id, key, value in await call.db.rows(sql.experiment_tags(list(experiments), call.db.dialect)):
        _tag(experiments[experiment_id], key, value)
    return list(experiments.values())


async def _change(call: Call, experiment_id: str, statement: Any, **values: object) -> None:
    """Change an active experiment. Raises NotFound, InvalidParameter where it is not one."""
    number = valid.experiment_id(experiment_id)
    try:
        await call.db.change(statement(workspace=call.workspace, experiment_id=number, **values))
    except GuardFailed:
        stage = await _stage_of(call, number)
        if stage != "active":
            raise InvalidParameter(
                f"The experiment {number} must be in the 'active' state. Current state is {stage}."
            ) from None
        raise


async def _stage_of(call: Call, experiment_id: int) -> str:
    """Raises NotFound."""
    rows = await call.db.rows(sql.STAGE(workspace=call.workspace, experiment_id=experiment_id))
    if not rows:
        raise unknown_experiment(experiment_id)
    return str(rows[0][0])


async def must_be_active(call: Call, experiment_id: str) -> int:
    """SqlAlchemyStore._check_experiment_is_active. Raises NotFound, InvalidParameter."""
    number = valid.experiment_id(experiment_id)
    stage = await _stage_of(call, number)
    if stage != "active":
        raise InvalidParameter(f"The experiment {number} must be in the 'active' state. Current state is {stage}.")
    return number


async def must_be_there(call: Call, experiment_id: str) -> int:
    """SqlAlchemyStore._validate_experiment_exists: one that is deleted is not there. Raises NotFound."""
    number = valid.experiment_id(experiment_id)
    if await _stage_of(call, number) != "active":
        raise unknown_experiment(number)
    return number


def unknown_experiment(experiment_id: int) -> NotFound:
    """SqlAlchemyStore._get_experiment."""
    return NotFound(f"No Experiment with id={experiment_id} exists")


def _name(name: str) -> str:
    """_validate_experiment_name, and what the column holds. Raises InvalidParameter."""
    if not name:
        raise missing("name")
    if len(name) > MAX_NAME_LENGTH:
        raise valid.too_long("name", MAX_NAME_LENGTH)
    return valid.text(name, COLUMN_LENGTH, "name")


def _name_taken(name: str) -> AlreadyExists:
    """Stock adds the database's own words, its host and the statement."""
    return AlreadyExists(f"Experiment(name={name}) already exists.")


def _experiment(
    experiment_id: int,
    name: str,
    artifact_location: str | None,
    lifecycle_stage: str | None,
    creation_time: int | None,
    last_update_time: int | None,
    workspace: str,
) -> Experiment:
    """A row of `experiments` as stock renders it (Experiment.to_proto)."""
    if artifact_location is None or lifecycle_stage is None or not workspace.strip():
        raise Declined("an experiment has no artifact_location, lifecycle_stage or workspace")
    return Experiment(
        str(experiment_id),
        name,
        artifact_location,
        lifecycle_stage,
        workspace.strip(),
        last_update_time or None,
        creation_time or None,
        [],
    )


def _tag(experiment: Experiment, key: str, value: str | None) -> None:
    if value is None:
        raise Declined("an experiment has a tag without a value")
    experiment.tags.append(KeyValue(key, value))


def _check_not_archiving(call: Call) -> None:
    """Raise Declined where experiments have a retention of their traces beside them, which stock works out."""
    if call.settings.trace_archival_config:
        raise Declined("its effective_trace_archival_retention")
