"""Native endpoints of runs: create, get, update, and all that logs to one. Parse, store, render; no SQL here.

Each handler answers with JSON, or raises Declined before anything has happened.
"""

from __future__ import annotations

import re
import uuid
from urllib.parse import parse_qsl

from headrace import wire
from headrace.db import base
from headrace.db.base import Store
from headrace.db.plan import RUN_NAME_TAG
from headrace.errors import Declined
from headrace.resources import validation as valid
from headrace.resources.runs.names import random_run_name

EMPTY = b"{}"

_CREATE_RUN = wire.decoder(wire.CreateRun)
_UPDATE_RUN = wire.decoder(wire.UpdateRun)
_LOG_METRIC = wire.decoder(wire.LogMetric)
_LOG_PARAM = wire.decoder(wire.LogParam)
_LOG_BATCH = wire.decoder(wire.LogBatch)
_SET_TAG = wire.decoder(wire.SetTag)
_DELETE_TAG = wire.decoder(wire.DeleteTag)
_EXPERIMENT_ID = re.compile(r"(0|[1-9][0-9]{0,8})\Z")


async def create_run(store: Store, body: bytes, query: bytes) -> bytes:
    """POST runs/create (SqlAlchemyStore.create_run)."""
    given = wire.decode(_CREATE_RUN, body)
    valid.require(_EXPERIMENT_ID.match(given.experiment_id) is not None, "not a number of an experiment")
    tags = [(tag.key, tag.value) for tag in given.tags]
    keys = dict(tags)
    valid.require(len(keys) == len(tags), "repeated tags")
    for key, value in tags:
        valid.text(key, valid.MAX_KEY_LENGTH)
        valid.text(value, valid.MAX_TAG_LENGTH)
    name_tag = keys.get(RUN_NAME_TAG)
    valid.require(not (given.run_name and name_tag and given.run_name != name_tag), "two names")
    name = valid.text(given.run_name or name_tag or random_run_name(), valid.MAX_KEY_LENGTH)
    if not name_tag:
        valid.require(name_tag is None, "an empty name")
        tags.append((RUN_NAME_TAG, name))
    write = base.CreateRun(
        run_id=uuid.uuid4().hex,
        experiment_id=int(given.experiment_id),
        name=name,
        user_id=valid.text(given.user_id, 256),
        start_time=valid.integer(given.start_time),
        tags=tuple(tags),
    )
    info = await store.write(write)
    return wire.encode(
        {"run": {"info": info, "data": {"tags": [{"key": k, "value": v} for k, v in tags]}, "inputs": {}}}
    )


async def get_run(store: Store, body: bytes, query: bytes) -> bytes:
    """GET runs/get?run_id=... (SqlAlchemyStore.get_run)."""
    given = parse_qsl(query.decode("ascii", "replace"), keep_blank_values=True)
    names = [name for name, _ in given]
    # stock reads a body only where there is no query; old clients name the run twice
    valid.require(
        not body and names in (["run_id"], ["run_id", "run_uuid"], ["run_uuid", "run_id"]),
        "not a plain query",
    )
    run = await store.get_run(valid.run_id(dict(given)["run_id"]))
    if run is None:
        raise Declined("the run is unknown")
    return wire.encode({"run": run})


async def update_run(store: Store, body: bytes, query: bytes) -> bytes:
    """POST runs/update (SqlAlchemyStore.update_run_info)."""
    given = wire.decode(_UPDATE_RUN, body)
    end_time = None if given.end_time is None else valid.integer(given.end_time)
    name = valid.text(given.run_name, valid.MAX_KEY_LENGTH) if given.run_name else None
    info = await store.write(base.UpdateRun(valid.run_id(given.run_id), given.status, end_time, name))
    return wire.encode({"run_info": info})


async def log_metric(store: Store, body: bytes, query: bytes) -> bytes:
    """POST runs/log-metric (SqlAlchemyStore.log_metric)."""
    given = wire.decode(_LOG_METRIC, body)
    await store.write(base.LogBatch(valid.run_id(given.run_id), metrics=(valid.metric(given),)))
    return EMPTY


async def log_param(store: Store, body: bytes, query: bytes) -> bytes:
    """POST runs/log-parameter (SqlAlchemyStore.log_param)."""
    given = wire.decode(_LOG_PARAM, body)
    await store.write(base.LogBatch(valid.run_id(given.run_id), params=valid.params([given])))
    return EMPTY


async def set_tag(store: Store, body: bytes, query: bytes) -> bytes:
    """POST runs/set-tag (SqlAlchemyStore.set_tag)."""
    given = wire.decode(_SET_TAG, body)
    await store.write(base.LogBatch(valid.run_id(given.run_id), tags=valid.tags([given])))
    return EMPTY


async def delete_tag(store: Store, body: bytes, query: bytes) -> bytes:
    """POST runs/delete-tag (SqlAlchemyStore.delete_tag)."""
    given = wire.decode(_DELETE_TAG, body)
    key = valid.text(given.key, valid.MAX_KEY_LENGTH)
    await store.write(base.DeleteTag(valid.run_id(given.run_id), key))
    return EMPTY


async def log_batch(store: Store, body: bytes, query: bytes) -> bytes:
    """POST runs/log-batch (SqlAlchemyStore.log_batch)."""
    given = wire.decode(_LOG_BATCH, body)
    valid.batch_limits(len(given.metrics), len(given.params), len(given.tags))
    write = base.LogBatch(
        valid.run_id(given.run_id),
        metrics=tuple(map(valid.metric, given.metrics)),
        params=valid.params(given.params),
        tags=valid.tags(given.tags),
    )
    await store.write(write)
    return EMPTY
