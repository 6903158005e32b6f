"""Native endpoints of single experiments: create, get, tags, rename, delete, restore."""

from __future__ import annotations

import time

from headrace import wire
from headrace.api.query import fields
from headrace.db import base
from headrace.db.base import Store
from headrace.errors import Declined
from headrace.resources import validation as valid

EMPTY = b"{}"
MAX_TAG_LENGTH = 20_000
# the column's; MLflow's own limit is larger
MAX_NAME_LENGTH = 256
# tags whose values stock reads when they are set
_READ_BY_STOCK = ("mlflow.customView.", "mlflow.trace")

_CREATE = wire.decoder(wire.CreateExperiment)
_SET_TAG = wire.decoder(wire.SetExperimentTag)
_DELETE_TAG = wire.decoder(wire.DeleteExperimentTag)
_UPDATE = wire.decoder(wire.UpdateExperiment)
_EXPERIMENT_ONLY = wire.decoder(wire.ExperimentOnly)


async def get_experiment(store: Store, body: bytes, query: bytes) -> bytes:
    """GET experiments/get?experiment_id=... (SqlAlchemyStore.get_experiment)."""
    given = fields(body, query, {"experiment_id"})
    experiment = await store.get_experiment(valid.experiment_id(given["experiment_id"][0]))
    if experiment is None:
        raise Declined("the experiment is unknown")
    return wire.encode({"experiment": experiment})


async def get_experiment_by_name(store: Store, body: bytes, query: bytes) -> bytes:
    """GET experiments/get-by-name?experiment_name=... (SqlAlchemyStore.get_experiment_by_name)."""
    given = fields(body, query, {"experiment_name"})
    name = given["experiment_name"][0]
    valid.require(name != "", "an empty name")
    experiment = await store.get_experiment_by_name(name)
    if experiment is None:
        raise Declined("the experiment is unknown")
    return wire.encode({"experiment": experiment})


async def create_experiment(store: Store, body: bytes, query: bytes) -> bytes:
    """POST experiments/create (SqlAlchemyStore.create_experiment)."""
    given = wire.decode(_CREATE, body)
    valid.require(given.name != "", "an empty name")
    tags = tuple((valid.key(tag.key), valid.text(tag.value, MAX_TAG_LENGTH)) for tag in given.tags)
    valid.require(len(dict(tags)) == len(tags), "repeated tags")
    valid.require(not any(key.startswith(_READ_BY_STOCK) for key, _ in tags), "a tag that stock reads")
    name = valid.text(given.name, MAX_NAME_LENGTH)
    experiment_id = await store.change(base.CreateExperiment(name, tags, _now()))
    return wire.encode({"experiment_id": str(experiment_id)})


async def set_experiment_tag(store: Store, body: bytes, query: bytes) -> bytes:
    """POST experiments/set-experiment-tag (SqlAlchemyStore.set_experiment_tag)."""
    given = wire.decode(_SET_TAG, body)
    valid.require(not given.key.startswith(_READ_BY_STOCK), "a tag that stock reads")
    value = valid.text(given.value, MAX_TAG_LENGTH)
    await store.change(base.SetExperimentTag(int(given.experiment_id), valid.key(given.key), value))
    return EMPTY


async def delete_experiment_tag(store: Store, body: bytes, query: bytes) -> bytes:
    """POST experiments/delete-experiment-tag (SqlAlchemyStore.delete_experiment_tag)."""
    given = wire.decode(_DELETE_TAG, body)
    key = valid.text(given.key, valid.MAX_KEY_LENGTH)
    await store.change(base.DeleteExperimentTag(int(given.experiment_id), key))
    return EMPTY


async def update_experiment(store: Store, body: bytes, query: bytes) -> bytes:
    """POST experiments/update (SqlAlchemyStore.rename_experiment)."""
    given = wire.decode(_UPDATE, body)
    valid.require(given.new_name != "", "an empty name")
    name = valid.text(given.new_name, MAX_NAME_LENGTH)
    await store.change(base.RenameExperiment(int(given.experiment_id), name, _now()))
    return EMPTY


async def delete_experiment(store: Store, body: bytes, query: bytes) -> bytes:
    """POST experiments/delete (SqlAlchemyStore.delete_experiment)."""
    given = wire.decode(_EXPERIMENT_ONLY, body)
    await store.change(base.DeleteExperiment(int(given.experiment_id), _now()))
    return EMPTY


async def restore_experiment(store: Store, body: bytes, query: bytes) -> bytes:
    """POST experiments/restore (SqlAlchemyStore.restore_experiment)."""
    given = wire.decode(_EXPERIMENT_ONLY, body)
    await store.change(base.RestoreExperiment(int(given.experiment_id), _now()))
    return EMPTY


def _now() -> int:
    return int(time.time() * 1000)
