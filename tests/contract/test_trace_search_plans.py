"""Searches of traces on SQLite look at the spans of one trace after the other, not at all spans for each trace."""

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
    ],
)
async def test_spans_are_found_by_their_trace(databases: Databases, text: str) -> None:
    asked = search.TraceSearch((1,), search.parse_filter(text), search.parse_order(["timestamp_ms DESC"]), 100)
    query = search_sql.search_traces(asked, Dialect.SQLITE)
    store = SqliteDatabase(databases.migrated("sqlite").name, queue_limit=10)
    try:
        plan = [row["detail"] for row in await store.rows(Query(f"EXPLAIN QUERY PLAN {query.text}", query.values))]
    finally:
        await store.close()
    (of_spans,) = (line for line in plan if line.startswith(("SEARCH f", "SCAN f")))
    assert "(trace_id=?" in of_spans, plan
