"""The statements of reads.py, with parameters, for both dialects. No value is ever part of a text."""

# ruff: noqa: S608  (the texts are made of constants of this module and placeholders)

from __future__ import annotations

from collections.abc import Sequence

from headrace.db.query import Dialect, Query, Statement

# NaN is stored as 0 with is_nan
VALUE = "CASE WHEN is_nan THEN 'NaN' ELSE value END"


def latest_metrics(run_ids: Sequence[str], dialect: Dialect) -> Query:
    """(run_uuid, key, value, timestamp, step), in no order."""
    sql = Statement(dialect)
    where = sql.in_list("run_uuid", run_ids)
    return sql.query(f"SELECT run_uuid, key, {VALUE}, timestamp, step FROM latest_metrics WHERE {where}")


def params(run_ids: Sequence[str], dialect: Dialect) -> Query:
    """(run_uuid, key, value), in no order."""
    sql = Statement(dialect)
    return sql.query(f"SELECT run_uuid, key, value FROM params WHERE {sql.in_list('run_uuid', run_ids)}")


def tags(run_ids: Sequence[str], dialect: Dialect) -> Query:
    """(run_uuid, key, value), in no order."""
    sql = Statement(dialect)
    return sql.query(f"SELECT run_uuid, key, value FROM tags WHERE {sql.in_list('run_uuid', run_ids)}")


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
WHERE i.destination_type = 'RUN' AND {sql.in_list("i.destination_id", run_ids)}
UNION ALL
SELECT i.source_id, i.source_type, i.destination_id, i.step, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
FROM inputs i
WHERE i.source_type = 'RUN_OUTPUT' AND i.destination_type = 'MODEL_OUTPUT' AND {sql.in_list("i.source_id", run_ids)}
""")


def run_names(run_ids: Sequence[str], dialect: Dialect) -> Query:
    """(run_uuid, name) of those whose tag has it."""
    sql = Statement(dialect)
    where = sql.in_list("run_uuid", run_ids)
    return sql.query(f"SELECT run_uuid, value FROM tags WHERE key = 'mlflow.runName' AND {where}")
