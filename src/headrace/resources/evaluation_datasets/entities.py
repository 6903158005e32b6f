"""A dataset as a client sees it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from headrace.api.endpoint import Call
from headrace.errors import NotFound
from headrace.resources.evaluation_datasets import sql


def digest(name: str, last_update_time: int) -> str:
    """SqlAlchemyStore._compute_dataset_digest."""
    return hashlib.sha256(f"{name}:{last_update_time}".encode()).hexdigest()[:8]


def unknown(dataset_id: str) -> NotFound:
    """SqlAlchemyStore.get_dataset."""
    return NotFound(f"Evaluation dataset with id '{dataset_id}' not found")


async def with_tags(call: Call, rows: Sequence[Any]) -> list[dict[str, Any]]:
    """Rows that begin with sql.COLUMNS, as EvaluationDataset.to_proto has them."""
    tags: dict[str, dict[str, str | None]] = {row[0]: {} for row in rows}
    if rows:
        for dataset_id, key, value in await call.db.rows(sql.TAGS(dataset_ids=list(tags))):
            tags[dataset_id][key] = value
    return [_dataset(row, tags[row[0]]) for row in rows]


def _dataset(row: Any, tags: dict[str, str | None]) -> dict[str, Any]:
    dataset_id, name, schema, profile, its_digest, created, updated, created_by, updated_by = tuple(row)[
        : sql.COLUMN_COUNT
    ]
    fields = {
        "dataset_id": dataset_id,
        "name": name,
        "tags": json.dumps(tags),
        "schema": schema,
        "profile": profile,
        "digest": its_digest,
        "created_time": created,
        "last_update_time": updated,
        "created_by": created_by,
        "last_updated_by": updated_by,
    }
    return {name: value for name, value in fields.items() if value is not None}
