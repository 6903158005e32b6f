"""The statements of reads.py, with parameters, for both dialects. No value is ever part of a text."""

# ruff: noqa: S608  (the texts are made of constants of this module and placeholders)

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from headrace.db.search_sql import EXPERIMENT_COLUMNS, Dialect, Query, Statement, granted

# the first and the last step that are wanted, or all
Steps: TypeAlias = tuple[int, int] | None

# NaN is stored as 0 with is_nan
_VALUE = "CASE WHEN is_nan THEN 'NaN' ELSE value END"


def latest_metrics(run_ids: Sequence[str], dialect: Dialect) -> Query:
    """(run_uuid, key, value, timestamp, step), in no order."""
    sql = Statement(dialect)
    where = sql.one_of("run_uuid", run_ids)
    return sql.query(f"SELECT run_uuid, key, {_VALUE}, timestamp, step FROM latest_metrics WHERE {where}")


def params(run_ids: Sequence[str], dialect: Dialect) -> Query:
    """(run_uuid, key, value), in no order."""
    sql = Statement(dialect)
    return sql.query(f"SELECT run_uuid, key, value FROM params WHERE {sql.one_of('run_uuid', run_ids)}")


def tags(run_ids: Sequence[str], dialect: Dialect) -> Query:
    """(run_uuid, key, value), in no order."""
    sql = Statement(dialect)
    return sql.query(f"SELECT run_uuid, key, value FROM tags WHERE {sql.one_of('run_uuid', run_ids)}")


def linked(run_ids: Sequence[str], dialect: Dialect) -> Query:
    """Datasets with their tags, and the models that runs made: run_id, and what records.inputs_and_outputs reads.

    SqlAlchemyStore._get_run_inputs and _get_model_outputs_bulk; a search leaves out the models that went into a run.
    """
    sql = Statement(dialect)
    return sql.query(f"""
SELECT i.destination_id AS run_id, 'DATASET' AS kind, d.dataset_uuid AS id, CAST(0 AS bigint) AS step, d.name,
  d.digest, d.dataset_source_type AS source_type, d.dataset_source AS source, d.dataset_schema AS schema,
  d.dataset_profile AS profile, g.name AS tag_key, g.value AS tag_value
FROM inputs i JOIN datasets d ON d.dataset_uuid = i.source_id LEFT JOIN input_tags g ON g.input_uuid = i.input_uuid
WHERE i.destination_type = 'RUN' AND {sql.one_of("i.destination_id", run_ids)}
UNION ALL
SELECT i.source_id, i.source_type, i.destination_id, i.step, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
FROM inputs i
WHERE i.source_type = 'RUN_OUTPUT' AND i.destination_type = 'MODEL_OUTPUT' AND {sql.one_of("i.source_id", run_ids)}
""")


def artifact_uri(run_id: str, dialect: Dialect) -> Query:
    """(artifact_uri), of a run deleted or not (SqlAlchemyStore.get_run)."""
    sql = Statement(dialect)
    return sql.query(f"SELECT artifact_uri FROM runs WHERE run_uuid = {sql.bind(run_id)}")


def model_source(name: str, version: int, dialect: Dialect) -> Query:
    """(where the files of a model version are) (SqlAlchemyStore.get_model_version_download_uri)."""
    sql = Statement(dialect)
    return sql.query(f"""
SELECT CASE WHEN storage_location IS NULL OR storage_location = '' THEN source ELSE storage_location END
FROM model_versions
WHERE workspace = 'default' AND name = {sql.bind(name)} AND version = {sql.bind(version)}
  AND current_stage <> 'Deleted_Internal'
""")


def model_versions(run_ids: Sequence[str], dialect: Dialect, seen_by: Sequence[str] | None = None) -> Query:
    """What ModelVersion takes, in its order (SqlAlchemyStore.search_model_versions)."""
    sql = Statement(dialect)
    where = [sql.one_of("run_id", run_ids), *granted(sql, "name", seen_by, "model")]
    return sql.query(f"""
SELECT name, version, creation_time, status, run_id, last_updated_time, description, user_id, current_stage, source,
  run_link, status_message
FROM model_versions
WHERE workspace = 'default' AND current_stage <> 'Deleted_Internal' AND {" AND ".join(where)}
ORDER BY last_updated_time DESC, name, version DESC
""")


def model_version_tags(run_ids: Sequence[str], dialect: Dialect) -> Query:
    """(name, version, key, value), in no order."""
    sql = Statement(dialect)
    return sql.query(f"""
SELECT t.name, t.version, t.key, t.value FROM model_version_tags t
JOIN model_versions v ON v.workspace = t.workspace AND v.name = t.name AND v.version = t.version
WHERE v.workspace = 'default' AND {sql.one_of("v.run_id", run_ids)}
""")


def experiment(experiment_id: int, dialect: Dialect) -> Query:
    """EXPERIMENT_COLUMNS, key and value of a tag: a row a tag, or one without (SqlAlchemyStore.get_experiment)."""
    return _experiments("experiment_id", experiment_id, dialect)


def experiments_by_name(name: str, dialect: Dialect) -> Query:
    """The same, of each workspace that has such an experiment (SqlAlchemyStore.get_experiment_by_name)."""
    return _experiments("name", name, dialect)


def _experiments(column: str, value: int | str, dialect: Dialect) -> Query:
    sql = Statement(dialect)
    return sql.query(
        f"SELECT {EXPERIMENT_COLUMNS}, t.key, t.value FROM experiments e"
        f" LEFT JOIN experiment_tags t ON t.experiment_id = e.experiment_id WHERE e.{column} = {sql.bind(value)}"
        " AND e.lifecycle_stage IN ('active', 'deleted')"
    )


def experiment_tags(experiment_ids: Sequence[int], dialect: Dialect) -> Query:
    """(experiment_id, key, value), in no order."""
    sql = Statement(dialect)
    where = sql.one_of("experiment_id", experiment_ids, "int")
    return sql.query(f"SELECT experiment_id, key, value FROM experiment_tags WHERE {where}")


def dataset_summaries(
    experiment_ids: Sequence[int], limit: int, dialect: Dialect, seen_by: Sequence[str] | None = None
) -> Query:
    """(experiment_id, name, digest, context), in no order (SqlAlchemyStore._search_datasets)."""
    sql = Statement(dialect)
    where = [sql.one_of("d.experiment_id", experiment_ids, "int"), *granted(sql, "d.experiment_id", seen_by)]
    return sql.query(
        "SELECT DISTINCT d.experiment_id, d.name, d.digest, t.value FROM datasets d"
        " JOIN inputs i ON i.source_id = d.dataset_uuid"
        " LEFT JOIN input_tags t ON t.input_uuid = i.input_uuid AND t.name = 'mlflow.data.context'"
        f" WHERE {' AND '.join(where)} LIMIT {sql.bind(limit)}"
    )


def metric_history(run_id: str, key: str, limit: int | None, offset: int, dialect: Dialect) -> Query:
    """(value, timestamp, step) of a page and one more (SqlAlchemyStore.get_metric_history)."""
    sql = Statement(dialect)
    text = (
        f"SELECT {_VALUE}, timestamp, step FROM metrics"
        f" WHERE run_uuid = {sql.bind(run_id)} AND key = {sql.bind(key)} ORDER BY timestamp, step, value"
    )
    if limit is not None or offset:
        text += f" LIMIT {sql.bind(2**62 if limit is None else limit + 1)} OFFSET {sql.bind(offset)}"
    return sql.query(text)


def metric_history_bulk(run_ids: Sequence[str], key: str, limit: int, dialect: Dialect) -> Query:
    """(run_uuid, value, timestamp, step) of several runs (SqlAlchemyStore.get_metric_history_bulk)."""
    sql = Statement(dialect)
    return sql.query(
        f"SELECT run_uuid, {_VALUE}, timestamp, step FROM metrics"
        f" WHERE key = {sql.bind(key)} AND {sql.one_of('run_uuid', run_ids)}"
        f" ORDER BY run_uuid, timestamp, step, value LIMIT {sql.bind(limit)}"
    )


def metric_shape(run_id: str, key: str, steps: Steps, dialect: Dialect) -> Query:
    """One row: how many points, how many different steps, the first step, the last one. An index alone answers it.

    It gives the ends without a walk, as which min and max beside count would look at each step again.
    """
    sql = Statement(dialect)
    points = f"FROM metrics WHERE {_points(sql, run_id, key, steps)}"
    ends = f"(SELECT min(step) {points}), (SELECT max(step) {points})"
    return sql.query(f"SELECT count(*), count(DISTINCT step), {ends} {points}")


def metric_at_steps(run_id: str, key: str, steps: Sequence[int], dialect: Dialect) -> Query:
    """(value, timestamp, step) of the points at these steps, in order."""
    sql = Statement(dialect)
    where = f"{_points(sql, run_id, key, None)} AND {sql.one_of('step', steps, 'bigint')}"
    return sql.query(f"SELECT {_VALUE}, timestamp, step FROM metrics WHERE {where} ORDER BY step")


def metric_at_places(run_id: str, key: str, steps: Steps, places: Sequence[int], dialect: Dialect) -> Query:
    """(value, timestamp, step) of the points at these places, from 1, by step, timestamp, value and is_nan."""
    sql = Statement(dialect)
    return sql.query(f"""
SELECT value, timestamp, step FROM (
  SELECT {_VALUE} AS value, timestamp, step,
    row_number() OVER (ORDER BY step, timestamp, metrics.value, is_nan) AS place
  FROM metrics WHERE {_points(sql, run_id, key, steps)}
) points
WHERE {sql.one_of("place", places, "bigint")} ORDER BY place
""")


def _points(sql: Statement, run_id: str, key: str, steps: Steps) -> str:
    where = f"run_uuid = {sql.bind(run_id)} AND key = {sql.bind(key)}"
    if steps is not None:
        where += f" AND step BETWEEN {sql.bind(steps[0])} AND {sql.bind(steps[1])}"
    return where
