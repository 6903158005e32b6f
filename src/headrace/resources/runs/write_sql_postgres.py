"""The SQL of writes.py on PostgreSQL, and what turns a plan into its array parameters. No value is part of a text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from math import nan
from typing import TYPE_CHECKING, Any

from headrace.resources.runs.log_plan import LogPlan, MetricRow
from headrace.resources.runs.records import PLAIN_LOCATION
from headrace.resources.runs.rows import RUN_INFO

if TYPE_CHECKING:
    from headrace.resources.runs.writes import CreateRun

# A group of one metric, the usual one of a single client: without arrays it takes 260 us instead of 390.
_LOG_ONE = """
WITH active AS (SELECT run_uuid, experiment_id FROM runs WHERE run_uuid = $1 AND lifecycle_stage = 'active'),
logged AS (
  INSERT INTO metrics (run_uuid, key, value, timestamp, step, is_nan)
  SELECT run_uuid, $2, $3, $4, $5, $6 FROM active
  ON CONFLICT DO NOTHING
), latest AS (
  INSERT INTO latest_metrics AS old (run_uuid, key, value, timestamp, step, is_nan)
  SELECT run_uuid, $2, $3, $4, $5, $6 FROM active
  ON CONFLICT (key, run_uuid) DO UPDATE
  SET value = excluded.value, timestamp = excluded.timestamp, step = excluded.step, is_nan = excluded.is_nan
  WHERE (excluded.step, excluded.timestamp, excluded.value) > (old.step, old.timestamp, old.value)
)"""
LOG_METRIC = f"{_LOG_ONE} SELECT run_uuid FROM active"  # noqa: S608
# SqlAlchemyStore._log_model_metrics. A model that is not there breaks a foreign key, and the statement with it.
_MODEL_METRIC = """
  INSERT INTO logged_model_metrics (model_id, metric_name, metric_timestamp_ms, metric_step, metric_value, dataset_name,
    dataset_digest, run_id, experiment_id)
"""
LOG_METRIC_OF_MODEL = f"""{_LOG_ONE}, of_model AS ({_MODEL_METRIC}
  SELECT $7, $2, $4, $5, $3, $8, $9, run_uuid, experiment_id FROM active
  ON CONFLICT DO NOTHING
)
SELECT run_uuid FROM active
"""  # noqa: S608

_METRIC = ("key varchar", "value float8", "timestamp bigint", "step bigint", "is_latest bool")
# NaN travels as NaN, where MLflow stores it in two columns: one array of six saved for a rare value.
_STORED = "run_uuid, key, CASE WHEN value = 'NaN' THEN 0 ELSE value END, timestamp, step, value = 'NaN'"
_PAIR = ("key varchar", "value varchar")
_NAME = ("name varchar",)
_OF_MODEL = (
    *("model_id varchar", "key varchar", "timestamp bigint", "step bigint", "value float8"),
    *("dataset_name varchar", "dataset_digest varchar"),
)


class _UnnestArrays:
    """Sets of rows that arrive as arrays, one a column, numbered in order; $1 is the run, or the array of runs.

    For one run, its id is no column of them: 1,000 metrics take an eighth less time without that array and its join.
    """

    def __init__(self, one_run: bool) -> None:
        self._one_run = one_run
        self._parameters = 1

    def rows(self, *columns: str) -> str:
        """What follows FROM: `given` with these columns, and the active run of each row as `run_uuid`."""
        own = columns if self._one_run else ("run_uuid varchar", *columns)
        first = self._parameters + 1
        self._parameters += len(own)
        arrays = ", ".join(f"${number}::{column.split()[1]}[]" for number, column in enumerate(own, first))
        names = ", ".join(column.split()[0] for column in own)
        join = "CROSS JOIN active" if self._one_run else "JOIN active USING (run_uuid)"
        return f"unnest({arrays}) AS given ({names}) {join}"


@cache
def log_statement(one_run: bool, tolerate_duplicates: bool, batch: bool, of_models: bool) -> str:
    """The statement that logs a group: metrics alone or everything (`batch`), some of logged models, too (`of_models`).

    Its parameters: `log_columns`. ON CONFLICT looks every metric up before it inserts it. Metrics are new but for
    those that a client sends again: first without it (1,000 metrics: 24 -> 22 ms), and once more with it
    (`tolerate_duplicates`) where that fails.
    """
    # SqlAlchemyStore._log_metrics_once and _update_latest_metrics_if_necessary. The ORDER BYs are the one order in
    # which every worker takes the locks of rows that others may write, too.
    given = _UnnestArrays(one_run)
    metrics = given.rows(*_METRIC)
    statement = f"""
WITH active AS (SELECT run_uuid, experiment_id FROM runs WHERE run_uuid {"= $1" if one_run else "= ANY($1::varchar[])"}
  AND lifecycle_stage = 'active'
), logged AS (
  INSERT INTO metrics (run_uuid, key, value, timestamp, step, is_nan)
  SELECT {_STORED} FROM {metrics}
  {"ON CONFLICT DO NOTHING" if tolerate_duplicates else ""}
), latest AS (
  INSERT INTO latest_metrics AS old (run_uuid, key, value, timestamp, step, is_nan)
  SELECT {_STORED} FROM {metrics} WHERE is_latest
  ORDER BY run_uuid COLLATE "C", key COLLATE "C"
  ON CONFLICT (key, run_uuid) DO UPDATE
  SET value = excluded.value, timestamp = excluded.timestamp, step = excluded.step, is_nan = excluded.is_nan
  WHERE (excluded.step, excluded.timestamp, excluded.value) > (old.step, old.timestamp, old.value)
)"""  # noqa: S608  (constants of this module)
    # A param that has another value would become NULL, which its column refuses: the whole statement fails, and
    # db/postgres.py looks for the write at fault. The usual case pays for no check, and no race can slip through.
    if batch:
        statement += f""", logged_params AS (
  INSERT INTO params AS old (run_uuid, key, value)
  SELECT run_uuid, key, value FROM {given.rows(*_PAIR)}
  ORDER BY run_uuid COLLATE "C", key COLLATE "C"
  ON CONFLICT (key, run_uuid) DO UPDATE SET value = NULL WHERE old.value <> excluded.value
), tagged AS (
  INSERT INTO tags (run_uuid, key, value)
  SELECT run_uuid, key, value FROM {given.rows(*_PAIR)}
  ORDER BY run_uuid COLLATE "C", key COLLATE "C"
  ON CONFLICT (key, run_uuid) DO UPDATE SET value = excluded.value
), named AS (
  UPDATE runs SET name = renamed.name
  FROM (SELECT run_uuid, given.name FROM {given.rows(*_NAME)}) AS renamed
  WHERE runs.run_uuid = renamed.run_uuid
)"""  # noqa: S608
    if of_models:
        statement += f""", of_models AS ({_MODEL_METRIC}
  SELECT model_id, key, timestamp, step, value, dataset_name, dataset_digest, run_uuid, experiment_id
  FROM {given.rows(*_OF_MODEL)}
  ORDER BY model_id COLLATE "C", key COLLATE "C", timestamp, step
  ON CONFLICT DO NOTHING
)"""  # noqa: S608
    return f"{statement} SELECT run_uuid FROM active"  # noqa: S608


CHANGED_PARAMS = """
SELECT old.run_uuid, old.key
FROM unnest($1::varchar[], $2::varchar[], $3::varchar[]) AS p (run_uuid, key, value)
JOIN params old ON old.run_uuid = p.run_uuid AND old.key = p.key
WHERE old.value <> p.value
"""

# SqlAlchemyStore.create_run. Run ids are ours, so a run that is there already is this write, sent again.
CREATE_RUNS = """
WITH incoming AS (
  SELECT * FROM unnest($1::varchar[], $2::varchar[], $3::varchar[], $4::bigint[], $5::int[])
    AS r (run_uuid, name, user_id, start_time, experiment_id)
), created AS (
  INSERT INTO runs (run_uuid, name, source_type, source_name, entry_point_name, user_id, status, start_time,
    source_version, lifecycle_stage, artifact_uri, experiment_id)
  SELECT r.run_uuid, r.name, 'UNKNOWN', '', '', r.user_id, 'RUNNING', r.start_time, '', 'active',
    CASE WHEN right(e.artifact_location, 1) = '/' THEN e.artifact_location ELSE e.artifact_location || '/' END
      || r.run_uuid || '/artifacts',
    r.experiment_id
  FROM incoming r CROSS JOIN LATERAL (
    SELECT lifecycle_stage, artifact_location FROM experiments x WHERE x.experiment_id = r.experiment_id OFFSET 0
  ) AS e
  WHERE e.lifecycle_stage = 'active' AND e.artifact_location ~ $9 AND length(e.artifact_location) <= 157
  ON CONFLICT (run_uuid) DO NOTHING
  RETURNING run_uuid, artifact_uri
), tagged AS (
  INSERT INTO tags (run_uuid, key, value)
  SELECT t.* FROM unnest($6::varchar[], $7::varchar[], $8::varchar[]) AS t (run_uuid, key, value)
    JOIN created USING (run_uuid)
)
SELECT run_uuid, artifact_uri FROM created
UNION ALL SELECT run_uuid, artifact_uri FROM runs WHERE run_uuid = ANY($1::varchar[])
"""

# SqlAlchemyStore.update_run_info. Rows that stock can't render, or names from a tag, are left to it.
UPDATE_RUN = f"""
UPDATE runs SET status = coalesce($2, status), end_time = coalesce($3, end_time), name = coalesce($4, name)
WHERE run_uuid = $1 AND lifecycle_stage = 'active'
  AND coalesce($4, name, '') <> '' AND start_time IS NOT NULL AND user_id IS NOT NULL
RETURNING {RUN_INFO}
"""  # noqa: S608

SET_TAG = """
INSERT INTO tags (run_uuid, key, value) VALUES ($1, $2, $3)
ON CONFLICT (key, run_uuid) DO UPDATE SET value = excluded.value
"""

DELETE_TAG = """
DELETE FROM tags USING runs
WHERE tags.run_uuid = $1 AND tags.key = $2 AND runs.run_uuid = $1 AND runs.lifecycle_stage = 'active'
RETURNING 1
"""


def log_columns(plan: LogPlan, batch: bool) -> list[Any]:
    """The parameters of a plan's log_statement."""
    rows = [row for _, row in plan.metrics]
    is_latest = [False] * len(rows)
    for index in plan.latest.values():
        is_latest[index] = True
    metrics: list[list[Any]] = [
        [run_id for run_id, _ in plan.metrics],
        [row.key for row in rows],
        [nan if row.is_nan else row.value + 0.0 for row in rows],  # see `value`
        [row.timestamp for row in rows],
        [row.step for row in rows],
        is_latest,
    ]
    sets = [metrics]
    if batch:
        sets += [split_keys(plan.params), split_keys(plan.tags), [list(plan.names), list(plan.names.values())]]
    if plan.model_metrics:
        of = [each for _, each in plan.model_metrics]
        sets.append(
            [
                [run_id for run_id, _ in plan.model_metrics],
                [each.model_id for each in of],
                [each.metric.key for each in of],
                [each.metric.timestamp for each in of],
                [each.metric.step for each in of],
                [value(each.metric) for each in of],
                [each.dataset_name for each in of],
                [each.dataset_digest for each in of],
            ]
        )
    if len(plan.run_ids) == 1:
        return [plan.run_ids[0], *(column for columns in sets for column in columns[1:])]
    return [plan.run_ids, *(column for columns in sets for column in columns)]


def value(row: MetricRow) -> float:
    """The value, and 0.0 for -0.0: stock's psycopg2 writes it as the text of a numeric, which has no sign then."""
    return row.value + 0.0


def split_keys(values: Mapping[tuple[str, str], str]) -> list[list[str]]:
    """(run_id, key) -> value as three columns."""
    return [[run_id for run_id, _ in values], [key for _, key in values], list(values.values())]


def create_columns(writes: Sequence[CreateRun]) -> list[Any]:
    """The parameters of CREATE_RUNS."""
    tags = [(write.run_id, key, value) for write in writes for key, value in write.tags]
    return [
        [write.run_id for write in writes],
        [write.name for write in writes],
        [write.user_id for write in writes],
        [write.start_time for write in writes],
        [write.experiment_id for write in writes],
        *([tag[column] for tag in tags] for column in range(3)),
        PLAIN_LOCATION,
    ]
