"""Logged models, as MLflow's messages have them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import Raw

from headrace.api.message import LOGGED_MODEL_STATUSES
from headrace.db.database import Database
from headrace.db.query import Dialect, Runnable
from headrace.errors import Declined, NotFound
from headrace.resources.logged_models import sql


async def logged_models(db: Database, rows: Sequence[Any]) -> list[dict[str, Any]]:
    """Rows of sql.SELECT as LoggedModel.to_proto has them. Raises Declined for what stock itself can't render."""
    metrics: dict[str, list[dict[str, Any]]] = {}
    if db.dialect is Dialect.SQLITE and rows:
        for row in await db.rows(sql.METRICS(model_ids=[row[0] for row in rows])):
            metrics.setdefault(row[0], []).append(_metric(*row))
    return [_logged_model(row, metrics.get(row[0])) for row in rows]


async def logged_model(db: Database, statement: Runnable) -> dict[str, Any] | None:
    """The model of a statement like sql.GET; None where there is none."""
    models = await logged_models(db, await db.rows(statement))
    return models[0] if models else None


async def location(db: Database, model_id: str) -> str:
    """Where a model's artifacts are. Raises NotFound for one that is unknown or deleted."""
    rows = () if "\0" in model_id else await db.rows(sql.LOCATION(model_id=model_id))
    if not rows:
        raise unknown_model(model_id)
    return str(rows[0][0])


def unknown_model(model_id: str) -> NotFound:
    """SqlAlchemyStore._raise_model_not_found."""
    return NotFound(f"Logged model with ID '{model_id}' not found.")


def info(
    model_id: str,
    experiment_id: int,
    name: str,
    artifact_location: str,
    created: int,
    updated: int,
    status: int,
    model_type: str | None,
    source_run_id: str | None,
    status_message: str | None = None,
) -> dict[str, Any]:
    """`LoggedModelInfo`, of sql.COLUMNS."""
    if not 0 <= status < len(LOGGED_MODEL_STATUSES):
        raise Declined("a logged model has a status of its own")
    found = {
        "model_id": model_id,
        "experiment_id": str(experiment_id),
        "name": name,
        "creation_timestamp_ms": created,
        "last_updated_timestamp_ms": updated,
        "artifact_uri": artifact_location,
        "status": LOGGED_MODEL_STATUSES[status],
    }
    optional = {"model_type": model_type, "source_run_id": source_run_id, "status_message": status_message}
    return found | {field: value for field, value in optional.items() if value is not None}


def _logged_model(row: Sequence[Any], metrics: list[dict[str, Any]] | None) -> dict[str, Any]:
    *columns, tags, params, encoded_metrics = tuple(row)[: sql.WIDTH]
    model: dict[str, Any] = {"info": info(*columns), "data": {}}
    if tags:
        model["info"]["tags"] = _list(tags)
    if params:
        model["data"]["params"] = _list(params)
    if metrics:
        model["data"]["metrics"] = metrics
    elif encoded_metrics:
        model["data"]["metrics"] = _list(encoded_metrics)
    return model


def _list(members: str) -> Raw:
    return Raw(b"[%b]" % members.encode())


def _metric(
    model_id: str, key: str, value: float, timestamp: int, step: int, dataset: str, digest: str, run_id: str
) -> dict[str, Any]:
    metric = {"key": key, "value": value, "timestamp": timestamp, "step": step, "model_id": model_id}
    optional = {"dataset_name": dataset, "dataset_digest": digest}
    return metric | {field: value for field, value in optional.items() if value} | {"run_id": run_id}
