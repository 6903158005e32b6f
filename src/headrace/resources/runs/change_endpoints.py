"""Endpoints that change a run as a whole: delete, restore, the datasets and models that it takes and makes."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import msgspec

from headrace.api.endpoint import Call, endpoint
from headrace.auth.objects import Run, WithModels
from headrace.auth.principals import Right
from headrace.clock import now_ms
from headrace.db.database import GuardFailed
from headrace.db.query import Bound, Sql
from headrace.errors import Declined, InvalidParameter
from headrace.resources import validation as valid
from headrace.resources.assessments import made_by_runs
from headrace.resources.runs import messages, model_history
from headrace.resources.runs.endpoints import check_active, unknown_run

# mlflow/utils/validation.py; PostgreSQL's column for a digest is as wide
MAX_DATASET_NAME, MAX_DATASET_DIGEST, MAX_DATASET_SOURCE = 500, 36, 65_535
MAX_DATASET_SCHEMA, MAX_DATASET_PROFILE = 1_048_575, 16_777_215
MAX_INPUT_TAG_KEY, MAX_INPUT_TAG_VALUE = 255, 500
MAX_MODEL_ID = 36  # the column's

RUN = Run("run_id")

DELETE = Sql("""
UPDATE runs SET lifecycle_stage = 'deleted', deleted_time = :now WHERE run_uuid = :run_id RETURNING 1
""")
RESTORE = Sql("""
UPDATE runs SET lifecycle_stage = 'active', deleted_time = NULL
WHERE run_uuid = :run_id AND coalesce(deleted_time, 1) <> 0 RETURNING 1
""")  # 0: gc is at it
# the lock keeps the run from being deleted meanwhile; SQLite has but one writer
ACTIVE = Sql(
    postgresql="SELECT 1 FROM runs WHERE run_uuid = :run_id AND lifecycle_stage = 'active' FOR SHARE",
    sqlite="SELECT 1 FROM runs WHERE run_uuid = :run_id AND lifecycle_stage = 'active'",
)
DATASET = Sql("""
INSERT INTO datasets (dataset_uuid, name, digest, dataset_source_type, dataset_source, dataset_schema, dataset_profile,
  experiment_id)
SELECT CAST(:id AS varchar), CAST(:name AS varchar), CAST(:digest AS varchar), CAST(:source_type AS varchar),
  CAST(:source AS text), CAST(:schema AS text), CAST(:profile AS text), experiment_id
FROM runs WHERE run_uuid = :run_id
ON CONFLICT (experiment_id, name, digest) DO NOTHING
""")
INPUT = Sql("""
INSERT INTO inputs (input_uuid, source_type, source_id, destination_type, destination_id)
SELECT CAST(:id AS varchar), 'DATASET', d.dataset_uuid, 'RUN', r.run_uuid
FROM runs r JOIN datasets d ON d.experiment_id = r.experiment_id
WHERE r.run_uuid = :run_id AND d.name = :name AND d.digest = :digest
ON CONFLICT (source_type, source_id, destination_type, destination_id) DO NOTHING
""")
INPUT_TAG = Sql("""
INSERT INTO input_tags (input_uuid, name, value)
SELECT input_uuid, CAST(:key AS varchar), CAST(:value AS varchar) FROM inputs WHERE input_uuid = :id
""")
# stock's session.merge gives a link that is there a new input_uuid
MODEL_INPUT = Sql("""
INSERT INTO inputs (input_uuid, source_type, source_id, destination_type, destination_id, step)
VALUES (:id, 'RUN_INPUT', :run_id, 'MODEL_INPUT', :model_id, 0)
ON CONFLICT (source_type, source_id, destination_type, destination_id) DO UPDATE SET input_uuid = excluded.input_uuid
""")
# A link that is there with this step was made by a request whose answer was lost; stock answers 400 then. Another step
# becomes NULL, which its column refuses.
MODEL_OUTPUT = Sql("""
INSERT INTO inputs (input_uuid, source_type, source_id, destination_type, destination_id, step)
VALUES (:id, 'RUN_OUTPUT', :run_id, 'MODEL_OUTPUT', :model_id, :step)
ON CONFLICT (source_type, source_id, destination_type, destination_id) DO UPDATE SET step = NULL
WHERE inputs.step <> excluded.step
""")
OUTPUTS = Sql("""
SELECT destination_id, step FROM inputs
WHERE source_type = 'RUN_OUTPUT' AND source_id = :run_id
  AND destination_type = 'MODEL_OUTPUT' AND destination_id IN :ids
""")
HISTORY = Sql("SELECT value FROM tags WHERE run_uuid = :run_id AND key = 'mlflow.log-model.history'")
# What SqlAlchemyStore.record_logged_model does when nobody comes in between.
NEW_HISTORY = Sql("""
INSERT INTO tags (key, value, run_uuid)
SELECT 'mlflow.log-model.history', CAST(:after AS varchar), run_uuid FROM runs
WHERE run_uuid = :run_id AND lifecycle_stage = 'active'
ON CONFLICT (key, run_uuid) DO NOTHING RETURNING 1
""")
CHANGE_HISTORY = Sql("""
UPDATE tags SET value = :after
WHERE run_uuid = (SELECT run_uuid FROM runs WHERE run_uuid = :run_id AND lifecycle_stage = 'active')
  AND key = 'mlflow.log-model.history' AND value = :before RETURNING 1
""")


@endpoint("POST", "2.0/mlflow/runs/delete", Right.EDIT, RUN, DELETE, "assessments")
async def delete_run(call: Call, message: messages.RunOnly) -> None:
    """SqlAlchemyStore.delete_run; the assessments that it has made go with it."""
    run_id = valid.without_nul(message.run_id, "run_id")
    try:
        await call.db.change(DELETE(run_id=run_id, now=now_ms()), made_by_runs.deleted_with_run(run_id))
    except GuardFailed:
        raise unknown_run(run_id) from None


@endpoint("POST", "2.0/mlflow/runs/restore", Right.EDIT, RUN, RESTORE)
async def restore_run(call: Call, message: messages.RunOnly) -> None:
    """SqlAlchemyStore.restore_run."""
    run_id = valid.without_nul(message.run_id, "run_id")
    try:
        await call.db.change(RESTORE(run_id=run_id))
    except GuardFailed:
        raise unknown_run(run_id) from None


@endpoint(
    "POST",
    "2.0/mlflow/runs/log-inputs",
    Right.EDIT,
    WithModels(RUN, "models", Right.READ),
    DATASET,
    INPUT,
    INPUT_TAG,
    audited="often",
)
async def log_inputs(call: Call, message: messages.LogInputs) -> None:
    """SqlAlchemyStore.log_inputs."""
    run_id = valid.run_id(message.run_id)
    datasets: dict[tuple[str, str], messages.DatasetInput] = {}
    for each in message.datasets:
        _check(each)
        datasets.setdefault((each.dataset.name, each.dataset.digest), each)
    statements = [
        MODEL_INPUT(id=uuid.uuid4().hex, run_id=run_id, model_id=model_id)
        for model_id in sorted({_model_id(model.model_id) for model in message.models})
    ]
    # one order for all, so that two runs that log the same datasets don't wait for each other in a circle
    statements += [_dataset(run_id, datasets[key].dataset) for key in sorted(datasets)]
    for each in datasets.values():
        statements += _input(run_id, each)
    await _change(call, run_id, *statements)


@endpoint(
    "POST", "2.0/mlflow/runs/outputs", Right.EDIT, WithModels(RUN, "models"), MODEL_OUTPUT, OUTPUTS, audited="often"
)
async def log_outputs(call: Call, message: messages.LogOutputs) -> None:
    """SqlAlchemyStore.log_outputs. Sent again after a lost answer it is 200, where stock answers 400."""
    run_id = valid.without_nul(message.run_id, "run_id")
    models = sorted((_model_id(model.model_id), model.step) for model in message.models)
    outputs = (MODEL_OUTPUT(id=uuid.uuid4().hex, run_id=run_id, model_id=model, step=step) for model, step in models)
    try:
        await _change(call, run_id, *outputs)
    except Declined:
        steps = dict(models)
        for model, step in await call.db.rows(OUTPUTS(run_id=run_id, ids=list(steps))):
            if steps[model] != step:
                raise InvalidParameter(
                    f"Model '{model}' is an output of run '{run_id}' already, of step {step}, not {steps[model]}."
                ) from None
        raise


@endpoint("POST", "2.0/mlflow/runs/log-model", Right.EDIT, RUN, HISTORY, NEW_HISTORY)
async def log_model(call: Call, message: messages.LogModel) -> None:
    """Clients before MLflow 3 send it (SqlAlchemyStore.record_logged_model)."""
    run_id = valid.without_nul(message.run_id, "run_id")
    entry = model_history.entry(message.model_json)
    await check_active(call.db, run_id)
    rows = await call.db.rows(HISTORY(run_id=run_id))
    before = rows[0][0] if rows else None
    after = valid.text(model_history.extended(before, entry), valid.MAX_TAG_LENGTH, "value")
    change = CHANGE_HISTORY if rows else NEW_HISTORY
    await call.db.change(change(run_id=run_id, after=after, **({"before": before} if rows else {})))


async def _change(call: Call, run_id: str, *statements: Bound) -> None:
    """All of it, in one transaction, to an active run."""
    try:
        await call.db.change(ACTIVE(run_id=run_id), *statements)
    except GuardFailed:
        await check_active(call.db, run_id)
        raise


def _dataset(run_id: str, dataset: messages.Dataset) -> Bound:
    return DATASET(
        id=uuid.uuid4().hex,
        name=dataset.name,
        digest=dataset.digest,
        source_type=dataset.source_type,
        source=dataset.source,
        schema=_optional(dataset.schema),
        profile=_optional(dataset.profile),
        run_id=run_id,
    )


def _input(run_id: str, each: messages.DatasetInput) -> Iterator[Bound]:
    input_id = uuid.uuid4().hex
    yield INPUT(id=input_id, run_id=run_id, name=each.dataset.name, digest=each.dataset.digest)
    for tag in each.tags:
        yield INPUT_TAG(id=input_id, key=tag.key, value=tag.value)


def _optional(value: str | msgspec.UnsetType) -> str | None:
    return None if isinstance(value, msgspec.UnsetType) else value


def _model_id(value: str) -> str:
    return valid.text(value, MAX_MODEL_ID, "model_id")


def _check(each: messages.DatasetInput) -> None:
    """_validate_dataset and _validate_input_tag. Raises InvalidParameter, Declined."""
    dataset = each.dataset
    valid.text(dataset.name, MAX_DATASET_NAME, "name")
    valid.text(dataset.digest, MAX_DATASET_DIGEST, "digest")
    valid.text(dataset.source_type, MAX_DATASET_DIGEST, "source_type")
    valid.text(dataset.source, MAX_DATASET_SOURCE, "source")
    for value, limit, name in (
        (dataset.schema, MAX_DATASET_SCHEMA, "schema"),
        (dataset.profile, MAX_DATASET_PROFILE, "profile"),
    ):
        if not isinstance(value, msgspec.UnsetType):
            valid.text(value, limit, name)
    for tag in each.tags:
        valid.text(tag.key, MAX_INPUT_TAG_KEY, "key")
        valid.text(tag.value, MAX_INPUT_TAG_VALUE, "value")
    if len({tag.key for tag in each.tags}) != len(each.tags):
        raise Declined("repeated tags of an input")
