"""Searches of traces on SQLite look at what one trace after the other has, not at all there is for each trace.

SQLite has no statistics: of several indexes with one column that it could use it takes any. Of traces that failed both
databases read no others.
"""

from __future__ import annotations

import pytest

from headrace.db import postgres_indexes
from headrace.db.postgres import PostgresDatabase
from headrace.db.query import Dialect, Query
from headrace.db.sqlite import SqliteDatabase
from headrace.resources.traces import search, search_sql
from tests.contract.test_indexes import until_built
from tests.support.databases import Backend, Databases

FAILED = "headrace_traces_failed"


@pytest.mark.parametrize(
    "text",
    [
        "span.attributes.kind LIKE '%a%'",
        "span.name = 'a'",
        "span.type = 'LLM' AND span.status = 'OK'",
        "span.content LIKE '%a%' AND trace.timestamp_ms > 1700000000000",
        "feedback.good = 'true'",
        "feedback.good IS NULL",
        "expectation.answer >= 0.5",
        "tags.team = 'a'",
        "metadata.a LIKE '%a%'",
    ],
)
async def test_what_a_trace_has_is_found_by_the_trace(databases: Databases, text: str) -> None:
    asked = search.TraceSearch((1,), search.parse_filter(text), search.parse_order(["timestamp_ms DESC"]), 100)
    query = search_sql.search_traces(asked, Dialect.SQLITE)
    store = SqliteDatabase(databases.migrated("sqlite").name, queue_limit=10)
    try:
        plan = [row["detail"] for row in await store.rows(Query(f"EXPLAIN QUERY PLAN {query.text}", query.values))]
    finally:
        await store.close()
    looked_up = plan[next(at for at, line in enumerate(plan) if line.startswith("CORRELATED")) + 1]
    assert "trace_id=?" in looked_up or "request_id=?" in looked_up, plan


@pytest.mark.parametrize("text", ["trace.status = 'ERROR'", "attributes.status = 'ERROR' AND tags.team = 'a'"])
@pytest.mark.parametrize("backend", ["postgresql", "sqlite"])
async def test_few_failed_traces_are_found_among_many(databases: Databases, backend: Backend, text: str) -> None:
    database = databases.migrated(backend)
    database.execute(
        "WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 4999)"
        " INSERT INTO trace_info (request_id, experiment_id, timestamp_ms, status, db_payload_generation)"
        " SELECT 'tr-' || i, 0, i, CASE WHEN i % 500 = 0 THEN 'ERROR' ELSE 'OK' END, 1 FROM n"
    )
    asked = search.TraceSearch((0,), search.parse_filter(text), search.parse_order(["timestamp_ms DESC"]), 100)
    store: PostgresDatabase | SqliteDatabase
    if backend == "postgresql":
        await postgres_indexes.build(database.url)
        database.execute("ANALYZE trace_info")
        store, explain = PostgresDatabase(database.url, queue_limit=10), "EXPLAIN"
    else:
        store, explain = SqliteDatabase(database.name, queue_limit=10), "EXPLAIN QUERY PLAN"
    among_first = search_sql.may_be_among_first(asked, store.dialect)
    query = search_sql.search_first(asked, None) if among_first else search_sql.search_traces(asked, store.dialect)
    await store.start()
    try:
        await until_built(database)
        found = await store.rows(query)  # first: SQLite explains by the tables as it last saw them
        plan = [str(tuple(row)) for row in await store.rows(Query(f"{explain} {query.text}", query.values))]
    finally:
        await store.close()
    assert [line for line in plan if FAILED in line], plan
    assert not [line for line in plan if "Sort" in line or "TEMP B-TREE" in line], plan
    assert [row[0] for row in found] == ([] if "tags" in text else [f"tr-{i}" for i in range(4500, -1, -500)])
