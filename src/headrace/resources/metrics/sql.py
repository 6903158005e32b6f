"""The statements that read histories of metrics, for both dialects. No value is ever part of a text.

Points are in the order of `metrics.value`, where NaN is 0: `value` alone is VALUE to PostgreSQL, and NaN its last.
"""

# ruff: noqa: S608  (the texts are made of constants of this module and placeholders)

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from headrace.db.query import Dialect, Query, Statement
from headrace.resources.runs.read_sql import VALUE

# the first and the last step that are wanted, or all
Steps: TypeAlias = tuple[int, int] | None


def metric_history(run_id: str, key: str, limit: int | None, offset: int, dialect: Dialect) -> Query:
    """(value, timestamp, step) of a page and one more (SqlAlchemyStore.get_metric_history)."""
    sql = Statement(dialect)
    text = (
        f"SELECT {VALUE}, timestamp, step FROM metrics"
        f" WHERE run_uuid = {sql.bind(run_id)} AND key = {sql.bind(key)} ORDER BY timestamp, step, metrics.value"
    )
    if limit is not None or offset:
        text += f" LIMIT {sql.bind(2**62 if limit is None else limit + 1)} OFFSET {sql.bind(offset)}"
    return sql.query(text)


def metric_history_bulk(run_ids: Sequence[str], key: str, limit: int, dialect: Dialect) -> Query:
    """(run_uuid, value, timestamp, step) of several runs (SqlAlchemyStore.get_metric_history_bulk)."""
    sql = Statement(dialect)
    return sql.query(
        f"SELECT run_uuid, {VALUE}, timestamp, step FROM metrics"
        f" WHERE key = {sql.bind(key)} AND {sql.in_list('run_uuid', run_ids)}"
        f" ORDER BY run_uuid, timestamp, step, metrics.value LIMIT {sql.bind(limit)}"
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
    """(value, timestamp, step) of the points at these steps, which are in order.

    Their ends, told beside them, lead PostgreSQL to the index of steps: where a thousand points of a run lie together
    (after CLUSTER) it would read all of them, and compare each with each of the steps.
    """
    sql = Statement(dialect)
    ends = (steps[0], steps[-1]) if dialect is Dialect.POSTGRESQL else None
    where = f"{_points(sql, run_id, key, ends)} AND {sql.in_list('step', steps, 'bigint')}"
    return sql.query(f"SELECT {VALUE}, timestamp, step FROM metrics WHERE {where} ORDER BY step")


def metric_at_rows(run_id: str, key: str, steps: Steps, row_numbers: Sequence[int], dialect: Dialect) -> Query:
    """(value, timestamp, step) of the points with these numbers, from 1, by step, timestamp, value and is_nan."""
    sql = Statement(dialect)
    return sql.query(f"""
SELECT value, timestamp, step FROM (
  SELECT {VALUE} AS value, timestamp, step,
    row_number() OVER (ORDER BY step, timestamp, metrics.value, is_nan) AS number
  FROM metrics WHERE {_points(sql, run_id, key, steps)}
) points
WHERE {sql.in_list("number", row_numbers, "bigint")} ORDER BY number
""")


def _points(sql: Statement, run_id: str, key: str, steps: Steps) -> str:
    where = f"run_uuid = {sql.bind(run_id)} AND key = {sql.bind(key)}"
    if steps is not None:
        where += f" AND step BETWEEN {sql.bind(steps[0])} AND {sql.bind(steps[1])}"
    return where
