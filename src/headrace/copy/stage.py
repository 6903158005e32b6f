"""Rows of a SQLite file with MLflow's tables, which is then copied: what a server, TensorBoard or W&B has."""

# ruff: noqa: S608  (the texts are made of constants of this package)

from __future__ import annotations

import json
import math
import re
import sqlite3
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

_LARGEST = 1.7976931348623157e308  # as MLflow's databases have infinity
_NAMES = uuid.UUID("6f1a7e04-6a0e-4f53-9c3f-0f3c2a3f5a10")
_NOT_IN_KEYS = re.compile(r"[^\w.\- :/]")  # mlflow.utils.validation
_MAX_KEY, _MAX_PARAM, _MAX_TAG = 250, 6000, 8000


class Point(NamedTuple):
    """A value of a metric. `timestamp` in milliseconds."""

    key: str
    value: float
    timestamp: int
    step: int


class Run(NamedTuple):
    """A run with its data. Times in milliseconds."""

    run_id: str
    experiment_id: int
    name: str
    user_id: str
    status: str
    start_time: int
    end_time: int | None
    artifact_uri: str
    lifecycle_stage: str = "active"
    params: Mapping[str, str] = {}
    tags: Mapping[str, str] = {}


class Stage:
    """The file. Its tables are made by MLflow's own store, `store`."""

    def __init__(self, file: str, database: sqlite3.Connection) -> None:
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        self.store = SqlAlchemyStore(f"sqlite:///{file}", "mlflow-artifacts:/")
        self.database = database
        database.execute("DELETE FROM experiments")

    def insert(self, table: str, *rows: dict[str, Any]) -> None:
        """Rows of the same columns. One whose key is there already stays as it is."""
        if rows:
            marks = ", ".join(f":{column}" for column in rows[0])
            text = f"INSERT INTO {table} ({', '.join(rows[0])}) VALUES ({marks}) ON CONFLICT DO NOTHING"
            self.database.executemany(text, rows)

    def experiment(self, number: int, name: str, location: str, created: int, updated: int) -> None:
        """An active one. Times in milliseconds."""
        self.insert("experiments", {
            "experiment_id": number, "name": name, "artifact_location": location, "lifecycle_stage": "active",
            "creation_time": created, "last_update_time": updated, "workspace": "default",
        })  # fmt: skip

    @contextmanager
    def run(self, run: Run) -> Iterator[None]:
        """A run; in the same transaction what is inserted within."""
        self.database.execute("BEGIN")
        self.insert("runs", {
            "run_uuid": run.run_id, "name": run.name, "experiment_id": run.experiment_id, "source_type": "UNKNOWN",
            "source_name": "", "entry_point_name": "", "source_version": "", "user_id": run.user_id,
            "status": run.status, "start_time": run.start_time, "end_time": run.end_time,
            "lifecycle_stage": run.lifecycle_stage, "artifact_uri": run.artifact_uri,
            "deleted_time": int(time.time() * 1000) if run.lifecycle_stage == "deleted" else None,
        })  # fmt: skip
        self.insert("params", *({"run_uuid": run.run_id, "key": k, "value": v} for k, v in run.params.items()))
        self.insert("tags", *({"run_uuid": run.run_id, "key": k, "value": v} for k, v in run.tags.items()))
        yield
        self.database.execute("COMMIT")

    def points(self, run_id: str, points: Iterable[Point]) -> None:
        """A part of a run's metrics. `latest_metrics` follows by `latest`."""
        self.insert("metrics", *({"run_uuid": run_id, **_columns(point)} for point in points))

    def latest(self, run_id: str) -> None:
        """Each metric's latest point, of all that there are (SqlAlchemyStore._update_latest_metrics_if_necessary)."""
        self.database.execute(
            """
            INSERT INTO latest_metrics (key, value, timestamp, step, is_nan, run_uuid)
            SELECT key, value, timestamp, step, is_nan, run_uuid FROM (
              SELECT *, row_number() OVER (PARTITION BY key ORDER BY step DESC, timestamp DESC, value DESC) AS place
              FROM metrics WHERE run_uuid = ?
            ) WHERE place = 1
            """,
            (run_id,),
        )


def same_id(*parts: object) -> str:
    """An id for what has none here: 32 hexadecimal digits, always the same for the same parts."""
    return uuid.uuid5(_NAMES, json.dumps(parts)).hex


def key_of(name: str) -> str:
    """A name as MLflow takes it for a metric, a param or a tag: other characters become "_"."""
    parts = [part for part in _NOT_IN_KEYS.sub("_", name).split("/") if part not in ("", ".", "..")]
    return "/".join(parts)[:_MAX_KEY].rstrip("/") or "_"


def param_of(value: object) -> str:
    """A value as text, cut where MLflow's client cuts it."""
    return (value if isinstance(value, str) else json.dumps(value))[:_MAX_PARAM]


def tag_of(value: str) -> str:
    """A text, cut where MLflow's client cuts it."""
    return value[:_MAX_TAG]


def finite(value: float) -> float:
    """As MLflow's databases have it: 0 for NaN, the largest number for infinity."""
    return 0.0 if math.isnan(value) else max(-_LARGEST, min(_LARGEST, value))


def _columns(point: Point) -> dict[str, Any]:
    return {
        "key": point.key, "value": finite(point.value), "timestamp": point.timestamp, "step": point.step,
        "is_nan": math.isnan(point.value),
    }  # fmt: skip


def portions(points: Iterable[Point], size: int = 10_000) -> Iterator[Sequence[Point]]:
    """The points, so many at a time: a run may have millions."""
    portion: list[Point] = []
    for point in points:
        portion.append(point)
        if len(portion) == size:
            yield portion
            portion = []
    yield portion
