"""Native endpoints that change a run as a whole: delete, restore, the datasets and models that it takes and makes."""

from __future__ import annotations

import time

import msgspec

from headrace import entities, wire
from headrace.db import base
from headrace.db.base import Store
from headrace.errors import Declined
from headrace.resources import validation as valid
from headrace.resources.runs import model_history

EMPTY = b"{}"
# mlflow/utils/validation.py; PostgreSQL's column for a digest is as wide
MAX_DATASET_NAME, MAX_DATASET_DIGEST, MAX_DATASET_SOURCE = 500, 36, 65_535
MAX_DATASET_SCHEMA, MAX_DATASET_PROFILE = 1_048_575, 16_777_215
MAX_INPUT_TAG_KEY, MAX_INPUT_TAG_VALUE = 255, 500
MAX_MODEL_ID = 36  # the column's

_RUN_ONLY = wire.decoder(wire.RunOnly)
_LOG_INPUTS = wire.decoder(wire.LogInputs)
_LOG_OUTPUTS = wire.decoder(wire.LogOutputs)
_LOG_MODEL = wire.decoder(wire.LogModel)


async def delete_run(store: Store, body: bytes, query: bytes) -> bytes:
    """POST runs/delete (SqlAlchemyStore.delete_run)."""
    given = wire.decode(_RUN_ONLY, body)
    await store.change(base.DeleteRun(valid.run_id(given.run_id), int(time.time() * 1000)))
    return EMPTY


async def restore_run(store: Store, body: bytes, query: bytes) -> bytes:
    """POST runs/restore (SqlAlchemyStore.restore_run)."""
    given = wire.decode(_RUN_ONLY, body)
    await store.change(base.RestoreRun(valid.run_id(given.run_id)))
    return EMPTY


async def log_outputs(store: Store, body: bytes, query: bytes) -> bytes:
    """POST runs/outputs (SqlAlchemyStore.log_outputs)."""
    given = wire.decode(_LOG_OUTPUTS, body)
    models = tuple((_model_id(model.model_id), valid.integer(model.step)) for model in given.models)
    await store.change(base.LogOutputs(valid.run_id(given.run_id), models))
    return EMPTY


async def log_model(store: Store, body: bytes, query: bytes) -> bytes:
    """POST runs/log-model, which clients before MLflow 3 send (SqlAlchemyStore.record_logged_model)."""
    given = wire.decode(_LOG_MODEL, body)
    entry = model_history.entry(given.model_json)
    run = await store.get_run(valid.run_id(given.run_id))
    if run is None:
        raise Declined("the run is unknown")
    before = next((tag.value for tag in run.data.tags if tag.key == model_history.TAG), None)
    after = valid.text(model_history.extended(before, entry), valid.MAX_TAG_LENGTH)
    await store.change(base.ReplaceTag(given.run_id, model_history.TAG, before, after))
    return EMPTY


async def log_inputs(store: Store, body: bytes, query: bytes) -> bytes:
    """POST runs/log-inputs (SqlAlchemyStore.log_inputs)."""
    given = wire.decode(_LOG_INPUTS, body)
    datasets: dict[tuple[str, str], entities.DatasetInput] = {}
    for each in given.datasets:
        datasets.setdefault((each.dataset.name, each.dataset.digest), _dataset_input(each))
    model_ids = tuple(_model_id(model.model_id) for model in given.models)
    await store.change(base.LogInputs(valid.run_id(given.run_id), tuple(datasets.values()), model_ids))
    return EMPTY


def _model_id(value: str) -> str:
    return valid.text(value, MAX_MODEL_ID)


def _dataset_input(given: wire.DatasetInput) -> entities.DatasetInput:
    dataset = entities.Dataset(
        valid.text(given.dataset.name, MAX_DATASET_NAME),
        valid.text(given.dataset.digest, MAX_DATASET_DIGEST),
        valid.text(given.dataset.source_type, MAX_DATASET_DIGEST),
        valid.text(given.dataset.source, MAX_DATASET_SOURCE),
        _optional(given.dataset.schema, MAX_DATASET_SCHEMA),
        _optional(given.dataset.profile, MAX_DATASET_PROFILE),
    )
    tags = [
        entities.KeyValue(valid.text(tag.key, MAX_INPUT_TAG_KEY), valid.text(tag.value, MAX_INPUT_TAG_VALUE))
        for tag in given.tags
    ]
    valid.require(len({tag.key for tag in tags}) == len(tags), "repeated tags of an input")
    return entities.DatasetInput(dataset, tags)


def _optional(value: str | msgspec.UnsetType, limit: int) -> str | None:
    return None if isinstance(value, msgspec.UnsetType) else valid.text(value, limit)
