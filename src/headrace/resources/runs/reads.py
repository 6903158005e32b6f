"""Runs as they are read: one by its id, pages of a search, whole or with data that is JSON already."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from math import isqrt
from typing import Any

from msgspec import Struct

from headrace.api.search.ast import Condition, KeysetValue, RunSearch
from headrace.api.search.sql import next_page
from headrace.db.database import Database
from headrace.db.query import Dialect, Sql
from headrace.db.sqlite import SqliteDatabase, fetch
from headrace.entities import EncodedRun, Run
from headrace.resources.runs import encoded_postgres, encoded_sqlite, read_sql, search_sql
from headrace.resources.runs.records import inputs_and_outputs, run_from_columns
from headrace.resources.runs.rows import RUN_COLUMNS, RUN_INFO, RunRows

# A page may have 50,000 runs: between portions of it the others on this event loop get their turn.
RUNS_AT_ONCE = 500


# One statement a run: the arrays come out of asyncpg as lists, without a Python object per cell of a row.
GET_RUN = Sql(
    postgresql=f"""
SELECT {RUN_INFO}, m.*, p.*, t.*,
  EXISTS (SELECT FROM inputs WHERE destination_type = 'RUN' AND destination_id = r.run_uuid)
  OR EXISTS (SELECT FROM inputs WHERE source_type IN ('RUN_INPUT', 'RUN_OUTPUT') AND source_id = r.run_uuid) AS linked
FROM runs r,
LATERAL (
  SELECT array_agg(key) AS metric_keys, array_agg(CASE WHEN is_nan THEN 'NaN' ELSE value END) AS metric_values,
    array_agg(timestamp) AS metric_timestamps, array_agg(step) AS metric_steps
  FROM latest_metrics WHERE run_uuid = r.run_uuid
) m,
LATERAL (
  SELECT array_agg(key) AS param_keys, array_agg(value) AS param_values FROM params WHERE run_uuid = r.run_uuid
) p,
LATERAL (SELECT array_agg(key) AS tag_keys, array_agg(value) AS tag_values FROM tags WHERE run_uuid = r.run_uuid) t
WHERE r.run_uuid = :run_id
""",  # noqa: S608  (constants of this module)
    sqlite=f"SELECT {RUN_INFO} FROM runs WHERE run_uuid = :run_id",  # noqa: S608
)
_METRICS = Sql("SELECT key, value, timestamp, step, is_nan FROM latest_metrics WHERE run_uuid = :run_id")
_PARAMS = Sql("SELECT key, value FROM params WHERE run_uuid = :run_id")
_TAGS = Sql("SELECT key, value FROM tags WHERE run_uuid = :run_id")

# SqlAlchemyStore._get_run_inputs, _get_model_inputs, _get_model_outputs, in one answer. Datasets come in the order in
# which they were logged, as far as the tables know it.
GET_LINKED = Sql("""
SELECT 'DATASET' AS kind, d.dataset_uuid AS id, CAST(0 AS bigint) AS step, d.name, d.digest,
  d.dataset_source_type AS source_type,
  d.dataset_source AS source, d.dataset_schema AS schema, d.dataset_profile AS profile,
  g.name AS tag_key, g.value AS tag_value
FROM inputs i JOIN datasets d ON d.dataset_uuid = i.source_id LEFT JOIN input_tags g ON g.input_uuid = i.input_uuid
WHERE i.destination_type = 'RUN' AND i.destination_id = :run_id
UNION ALL
SELECT i.source_type, i.destination_id, i.step, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
FROM inputs i
WHERE i.source_id = :run_id AND (i.source_type = 'RUN_INPUT' AND i.destination_type = 'MODEL_INPUT'
  OR i.source_type = 'RUN_OUTPUT' AND i.destination_type = 'MODEL_OUTPUT')
""")
ARTIFACT_URI = Sql("SELECT artifact_uri FROM runs WHERE run_uuid = :run_id")

RUN_TABLES = (GET_RUN, _METRICS, _PARAMS, _TAGS, GET_LINKED)


class RunPage(Struct, frozen=True, gc=False):
    """Runs in the order of their search. `after`: where the next page starts, None where there is none.

    Runs that are on their way to a client have data that is JSON already, where it pays.
    """

    runs: Sequence[Run | EncodedRun]
    after: tuple[KeysetValue, ...] | None


async def get_run(db: Database, run_id: str) -> Run | None:
    """The run with its latest metrics, params, tags, inputs and outputs; None where there is none.

    Raises Declined for a row that stock itself can't render (a NULL start_time, say).
    """
    if db.dialect is Dialect.SQLITE:
        statements = (GET_RUN, _METRICS, _PARAMS, _TAGS, GET_LINKED)
        rows, *others, linked = await db.rows_of(*(statement(run_id=run_id) for statement in statements))
        return run_from_columns(_columns(rows[0], *others), *inputs_and_outputs(linked)) if rows else None
    rows = await db.rows(GET_RUN(run_id=run_id))
    if not rows:
        return None
    linked = await db.rows(GET_LINKED(run_id=run_id)) if rows[0]["linked"] else []
    return run_from_columns(rows[0], *inputs_and_outputs(linked))


def _columns(row: Any, metrics: Sequence[Any], params: Sequence[Any], tags: Sequence[Any]) -> dict[str, Any]:
    """SQLite's rows, as PostgreSQL has them in one."""
    return {
        **dict(row),
        "metric_keys": [m["key"] for m in metrics],
        "metric_values": [float("nan") if m["is_nan"] else m["value"] for m in metrics],
        "metric_timestamps": [m["timestamp"] for m in metrics],
        "metric_steps": [m["step"] for m in metrics],
        "param_keys": [p["key"] for p in params],
        "param_values": [p["value"] for p in params],
        "tag_keys": [t["key"] for t in tags],
        "tag_values": [t["value"] for t in tags],
    }


async def artifact_uri(db: Database, run_id: str) -> str | None:
    """Where the run's artifacts are, deleted or not; None where there is no such run (SqlAlchemyStore.get_run)."""
    rows = await db.rows(ARTIFACT_URI(run_id=run_id))
    return rows[0][0] or "" if rows else None


async def search_runs(db: Database, search: RunSearch, grantees: Sequence[str] | None, encoded: bool) -> RunPage:
    """The page, each run with its latest metrics, params, tags, datasets and outputs (not its model inputs).

    `encoded`: with data that is JSON. Raises Declined for rows that stock itself can't render, and for what the
    database would refuse; BadPageToken for an `after` that does not fit the order.
    """
    rows = await find_runs(db, search, grantees)
    page = rows[: search.max_results]
    runs: list[Run | EncodedRun] = []
    for begin in range(0, len(page), RUNS_AT_ONCE):
        runs += await _load(db, RunRows(page[begin : begin + RUNS_AT_ONCE]), encoded)
    return RunPage(runs, next_page(rows, search.max_results, len(RUN_COLUMNS)))


async def find_runs(db: Database, search: RunSearch, grantees: Sequence[str] | None) -> Sequence[Any]:
    """The rows of search_sql.search_runs."""
    most_selective = await most_selective_condition(db, search) if db.dialect is Dialect.SQLITE else None
    statement = partial(search_sql.search_runs, search, db.dialect, grantees, most_selective=most_selective)
    if search_sql.orders_by_metric_first(search):
        rows = await db.rows(statement(finite_values_only=True))
        if len(rows) > search.max_results:
            return rows
    return await db.rows(statement())


async def most_selective_condition(db: Database, search: RunSearch) -> Condition | None:
    """One for search_sql.search_runs to begin with, on SQLite, which has no statistics to find it by."""
    conditions = search_sql.indexed(search)
    if not conditions:
        return None
    # To look at runs in their order until the page is full takes, for a condition that `n` of all `runs` meet,
    # `max_results * runs / n` looks; to list those that meet it takes `n`.
    [(runs,)] = await db.rows(search_sql.estimate_run_count(db.dialect))
    selective, fewest = None, isqrt(search.max_results * runs)
    for condition in conditions:
        [(count,)] = await db.rows(search_sql.count_matching_runs(condition, fewest, db.dialect))
        if count < fewest:
            selective, fewest = condition, count
    return selective


async def _load(db: Database, runs: RunRows, encoded: bool) -> Sequence[Run | EncodedRun]:
    await _name(db, runs)
    if encoded and isinstance(db, SqliteDatabase):
        return await db.read(lambda connection: encoded_sqlite.load(lambda query: fetch(connection, query), runs))
    if encoded:
        return await encoded_postgres.load(db, runs)
    loads = (read_sql.latest_metrics, read_sql.params, read_sql.tags, read_sql.linked)
    metrics, params, tags, linked = await db.rows_of(*(load(runs.run_ids, db.dialect) for load in loads))
    runs.add_metrics(metrics)
    runs.add_params(params)
    runs.add_tags(tags)
    runs.add_linked(linked)
    return runs.runs()


async def _name(db: Database, runs: RunRows) -> None:
    """Runs of MLflow before 1.30 have their name in the tag alone."""
    nameless = runs.nameless()
    if nameless:
        runs.name(await db.rows(read_sql.run_names(nameless, db.dialect)))
