"""Endpoints of runs: create, get, search, update, and all that logs to one. Decode, store, render; no SQL here."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence

import msgspec

from headrace.api.endpoint import Call, endpoint
from headrace.api.message import missing
from headrace.api.search import page_token
from headrace.api.search.ast import RunSearch
from headrace.api.search.page_token import PageToken
from headrace.auth.objects import Experiment, Filtered, Run, WithModels
from headrace.auth.principals import Right
from headrace.db.database import Database
from headrace.db.query import Sql
from headrace.entities import EncodedRun
from headrace.entities import Run as RunEntity
from headrace.errors import Declined, InvalidParameter, NotFound
from headrace.resources import validation as valid
from headrace.resources.logged_models.reads import unknown_model
from headrace.resources.runs import messages, reads, search, writes
from headrace.resources.runs.log_plan import RUN_NAME_TAG, MetricRow, ModelMetric
from headrace.resources.runs.names import random_run_name

RUN = Run("run_id", "run_uuid")
RUNS_AT_ONCE = 1_000
STAGES = {"ACTIVE_ONLY": ("active",), "DELETED_ONLY": ("deleted",), "ALL": ("active", "deleted")}

STAGE = Sql("SELECT lifecycle_stage FROM runs WHERE run_uuid = :run_id")
EXPERIMENT_STAGE = Sql("SELECT lifecycle_stage FROM experiments WHERE experiment_id = :experiment_id")
PARAMS = Sql("SELECT key, value FROM params WHERE run_uuid = :run_id AND key IN :keys")
MODELS = Sql("SELECT model_id FROM logged_models WHERE model_id IN :model_ids")
# the columns'
MAX_DATASET_NAME, MAX_DATASET_DIGEST = 500, 36
_OF_MODELS = ("logged_models", "logged_model_metrics")
_METRICS = ("runs", "metrics", "latest_metrics")
_LOGGED = (*_METRICS, "params", "tags")


def run_id_of(message: messages.OfRun | messages.LogMetric | messages.LogParam | messages.UpdateRun) -> str:
    """`request_message.run_id or request_message.run_uuid`, as handlers.py has it. Raises InvalidParameter."""
    run_id = message.run_id or message.run_uuid
    if not run_id:
        raise missing("run_id")
    return valid.without_nul(run_id, "run_id")


@endpoint("POST", "2.0/mlflow/runs/create", Right.EDIT, Experiment("experiment_id"), "experiments", "runs", "tags")
async def create_run(call: Call, message: messages.CreateRun) -> object:
    """SqlAlchemyStore.create_run."""
    tags = [(valid.without_nul(tag.key, "key"), tag.value) for tag in message.tags]
    keys = dict(tags)
    if len(keys) != len(tags):
        raise Declined("repeated tags")
    for key, value in tags:
        valid.text(key, valid.MAX_KEY_LENGTH, "key")
        valid.text(value, valid.MAX_TAG_LENGTH, "value")
    name_tag = keys.get(RUN_NAME_TAG)
    if message.run_name and name_tag and message.run_name != name_tag:
        raise InvalidParameter(
            "Both 'run_name' argument and 'mlflow.runName' tag are specified, but with "
            f"different values (run_name='{message.run_name}', mlflow.runName='{name_tag}')."
        )
    name = valid.text(message.run_name or name_tag or random_run_name(), valid.MAX_KEY_LENGTH, "run_name")
    if not name_tag:
        if name_tag is not None:
            raise InvalidParameter("The tag 'mlflow.runName' is empty. Leave it out, and the run gets a name.")
        tags.append((RUN_NAME_TAG, name))
    experiment_id = valid.experiment_id(message.experiment_id)
    write = writes.CreateRun(
        run_id=uuid.uuid4().hex,
        experiment_id=experiment_id,
        name=name,
        user_id=valid.text(message.user_id, 256, "user_id"),
        start_time=message.start_time,
        tags=tuple(tags),
    )
    try:
        info = await call.db.submit(write)
    except Declined:
        await check_experiment(call.db, experiment_id)
        raise
    return {"run": {"info": info, "data": {"tags": [{"key": k, "value": v} for k, v in tags]}, "inputs": {}}}


@endpoint("GET", "2.0/mlflow/runs/get", Right.READ, RUN, *reads.RUN_TABLES)
async def get_run(call: Call, message: messages.GetRun) -> object:
    """SqlAlchemyStore.get_run."""
    run_id = run_id_of(message)
    run = await reads.get_run(call.db, run_id)
    if run is None:
        raise unknown_run(run_id)
    return {"run": run}


@endpoint("POST", "2.0/mlflow/runs/search", Right.READ, Filtered(), *reads.RUN_TABLES, replica=True)
async def search_runs(call: Call, message: messages.SearchRuns) -> object:
    """SqlAlchemyStore._search_runs."""
    if message.max_results > 50_000:
        raise valid.hint("max_results", message.max_results, "int")
    valid.max_results(message.max_results)
    conditions = search.parse_filter(message.filter)
    order = search.parse_order(message.order_by)
    experiments = tuple(valid.experiment_ids(message.experiment_ids))
    # what the keys in a token depend on: not on the filter, whose text may have the time in it
    fingerprint = page_token.fingerprint("runs", message.order_by)
    token = page_token.decode(message.page_token, fingerprint)
    page = await reads.search_runs(
        call.db,
        RunSearch(
            experiments,
            STAGES[message.run_view_type],
            conditions,
            order,
            message.max_results,
            token.offset,
            token.after,
        ),
        call.grantees,
        encoded=True,
    )
    answer: dict[str, object] = {"runs": await _encoded(page.runs)} if page.runs else {}
    if page.after is not None:
        next_page = PageToken(token.offset + len(page.runs), page.after, fingerprint)
        answer["next_page_token"] = page_token.encode(next_page)
    return answer


async def _encoded(runs: Sequence[RunEntity | EncodedRun]) -> msgspec.Raw:
    """The JSON of the runs, made in portions that don't hold up the others on this event loop."""
    portions = []
    for begin in range(0, len(runs), RUNS_AT_ONCE):
        portions.append(msgspec.json.encode(runs[begin : begin + RUNS_AT_ONCE])[1:-1])
        await asyncio.sleep(0)
    return msgspec.Raw(b"[%b]" % b",".join(portions))


@endpoint("POST", "2.0/mlflow/runs/update", Right.EDIT, RUN, "runs", "tags")
async def update_run(call: Call, message: messages.UpdateRun) -> object:
    """SqlAlchemyStore.update_run_info."""
    name = valid.text(message.run_name, valid.MAX_KEY_LENGTH, "run_name") if message.run_name else None
    write = writes.UpdateRun(run_id_of(message), message.status, message.end_time, name)
    info = await _submit(call.db, write)
    if call.events.by_kind:
        await call.events.run_changed(write.run_id, write.status, write.end_time)
    return {"run_info": info}


@endpoint("POST", "2.0/mlflow/runs/log-metric", Right.EDIT, WithModels(RUN), *_METRICS, *_OF_MODELS, audited="often")
async def log_metric(call: Call, message: messages.LogMetric) -> None:
    """SqlAlchemyStore.log_metric."""
    metrics = (valid.metric(message),)
    of_models: tuple[ModelMetric, ...] = ()
    if message.model_id or message.dataset_name or message.dataset_digest:
        of_models = _of_models((message,), metrics)
    run_id = run_id_of(message)
    await _submit(call.db, writes.LogBatch(run_id, metrics, (), (), of_models))
    if call.events.by_metric:
        await call.events.logged(run_id, metrics)


@endpoint("POST", "2.0/mlflow/runs/log-parameter", Right.EDIT, RUN, *_LOGGED, audited="often")
async def log_param(call: Call, message: messages.LogParam) -> None:
    """SqlAlchemyStore.log_param."""
    key, value = valid.param(message)
    run_id = run_id_of(message)
    try:
        await _submit(call.db, writes.LogBatch(run_id, params=((key, value),)))
    except writes.ChangedParam:
        for _, old in await call.db.rows(PARAMS(run_id=run_id, keys=[key])):
            raise InvalidParameter(
                f"Changing param values is not allowed. Param with key='{key}' was already logged with value='{old}' "
                f"for run ID='{run_id}'. Attempted logging new value '{value}'."
            ) from None
        raise


@endpoint("POST", "2.0/mlflow/runs/set-tag", Right.EDIT, RUN, *_LOGGED, audited="often")
async def set_tag(call: Call, message: messages.SetTag) -> None:
    """SqlAlchemyStore.set_tag."""
    await _submit(call.db, writes.LogBatch(run_id_of(message), tags=(valid.tag(message),)))


@endpoint("POST", "2.0/mlflow/runs/delete-tag", Right.EDIT, RUN, "runs", "tags", audited="often")
async def delete_tag(call: Call, message: messages.DeleteTag) -> None:
    """SqlAlchemyStore.delete_tag."""
    run_id = valid.without_nul(message.run_id, "run_id")
    try:
        await _submit(call.db, writes.DeleteTag(run_id, valid.without_nul(message.key, "key")))
    except Declined:
        raise NotFound(f"No tag with name: {message.key} in run with id {run_id}") from None


@endpoint(
    "POST", "2.0/mlflow/runs/log-batch", Right.EDIT, WithModels(RUN, "metrics"), *_LOGGED, *_OF_MODELS, audited="often"
)
async def log_batch(call: Call, message: messages.LogBatch) -> None:
    """SqlAlchemyStore.log_batch."""
    run_id = valid.run_id(message.run_id)
    metrics = valid.metrics(message.metrics)
    model_metrics = _of_models(message.metrics, metrics)
    tags = valid.tags(message.tags)
    valid.batch_limits(len(metrics), len(message.params), len(tags))
    params = valid.params(message.params)
    try:
        await _submit(call.db, writes.LogBatch(run_id, metrics, params, tags, model_metrics))
    except writes.ChangedParam:
        new = dict(params)
        rows = await call.db.rows(PARAMS(run_id=run_id, keys=list(new)))
        changed = [{"key": key, "old_value": old, "new_value": new[key]} for key, old in rows if old != new[key]]
        if not changed:
            raise
        raise InvalidParameter(
            f"Changing param values is not allowed. Params were already logged='{changed}' for run ID='{run_id}'."
        ) from None
    if call.events.by_metric:
        await call.events.logged(run_id, metrics)


async def _submit(db: Database, write: writes.LogBatch | writes.UpdateRun | writes.DeleteTag) -> object:
    """Do it, or say why the run can't be written to."""
    try:
        return await db.submit(write)
    except writes.ChangedParam:
        raise
    except Declined:
        await check_active(db, write.run_id)
        if isinstance(write, writes.LogBatch) and write.model_metrics:
            await check_models(db, [each.model_id for each in write.model_metrics])
        raise


def _of_models(
    given: Sequence[messages.Metric | messages.LogMetric], metrics: Sequence[MetricRow]
) -> tuple[ModelMetric, ...]:
    """Those of the metrics that are a logged model's, too. Raises InvalidParameter for half a dataset."""
    found = []
    for each, row in zip(given, metrics, strict=True):
        dataset, digest = each.dataset_name, each.dataset_digest
        if not (each.model_id or dataset or digest):  # the usual case first: a batch has a thousand of them
            continue
        if (dataset == "") != (digest == ""):
            raise InvalidParameter("Both dataset_name and dataset_digest must be provided if one is provided")
        if each.model_id:
            valid.text(dataset, MAX_DATASET_NAME, "dataset_name")
            valid.text(digest, MAX_DATASET_DIGEST, "dataset_digest")
            model_id = valid.without_nul(each.model_id, "model_id")
            found.append(ModelMetric(model_id, row, dataset or None, digest or None))
    return tuple(found)


async def check_models(db: Database, model_ids: Sequence[str]) -> None:
    """Raises NotFound for the first that there is not; deleted ones are there, as in stock."""
    known = {row[0] for row in await db.rows(MODELS(model_ids=sorted(set(model_ids))))}
    for model_id in model_ids:
        if model_id not in known:
            raise unknown_model(model_id)


async def check_active(db: Database, run_id: str) -> None:
    """SqlAlchemyStore._get_run and _check_run_is_active. Raises NotFound, InvalidParameter."""
    rows = await db.rows(STAGE(run_id=run_id))
    if not rows:
        raise unknown_run(run_id)
    if rows[0][0] != "active":
        raise InvalidParameter(f"The run {run_id} must be in the 'active' state. Current state is {rows[0][0]}.")


def unknown_run(run_id: str) -> NotFound:
    """SqlAlchemyStore._get_run."""
    return NotFound(f"Run with id={run_id} not found")


async def check_experiment(db: Database, experiment_id: int) -> None:
    """SqlAlchemyStore._get_experiment and _check_experiment_is_active. Raises NotFound, InvalidParameter."""
    rows = await db.rows(EXPERIMENT_STAGE(experiment_id=experiment_id))
    if not rows:
        raise NotFound(f"No Experiment with id={experiment_id} exists")
    if rows[0][0] != "active":
        raise InvalidParameter(
            f"The experiment {experiment_id} must be in the 'active' state. Current state is {rows[0][0]}."
        )
