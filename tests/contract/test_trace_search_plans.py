"""Searches of traces on SQLite look at what one trace after the other has, not at all there is for each trace.

SQLite has no statistics: of several indexes with one column that it could use it takes any.
"""

from __future__ import annotations

import pytest

from headrace.db.query import Dialect, Query
from headrace.db.sqlite import SqliteDatabase
from headrace.resources.traces import search, search_sql
from tests.support.databases import Databases


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
