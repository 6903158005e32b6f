"""Writes find their rows by key on PostgreSQL, with the plans that it keeps from when the tables were empty, too."""

from __future__ import annotations

import itertools
import re
from collections import defaultdict

import pytest

from headrace.database_url import PostgresURL
from headrace.db.postgres import PostgresDatabase
from headrace.db.query import Dialect, Sql
from headrace.resources.assessments import sql as assessment_sql
from headrace.resources.logged_models import sql as model_sql
from headrace.resources.runs import write_sql_postgres as sql
from headrace.resources.traces import sql as trace_sql
from headrace.resources.traces import starts
from tests.support.databases import Databases


def texts_of(name: str, statement: Sql) -> dict[str, str]:
    """Of many rows, and of one where that has a text of its own."""
    many = statement.query(defaultdict(list), Dialect.POSTGRESQL).text
    one = statement.query(defaultdict(lambda: [None]), Dialect.POSTGRESQL).text
    return {name: many} | ({f"{name}, one row": one} if one != many else {})


STATEMENTS = {
    **{f"log, {variant}": sql.log_statement(*variant) for variant in itertools.product((True, False), repeat=4)},
    "log a metric": sql.LOG_METRIC,
    "log a metric of a model": sql.LOG_METRIC_OF_MODEL,
    "create logged models": model_sql.CREATE_POSTGRES,
    "finalize logged models": model_sql.FINALIZE_POSTGRES,
    "create runs": sql.CREATE_RUNS,
    "update a run": sql.UPDATE_RUN,
    "set a tag": sql.SET_TAG,
    "delete a tag": sql.DELETE_TAG,
    "changed params": sql.CHANGED_PARAMS,
    **texts_of("make traces", starts.NEW),
    **texts_of("put traces", starts.PUT),
    **texts_of("make traces of spans", Sql(trace_sql.NEW_TRACES)),
    **texts_of("add spans", Sql(trace_sql.ADD_SPANS)),
    **texts_of("move assessments", Sql(trace_sql.MOVE)),
    **texts_of("set traces", Sql(trace_sql.SET_TRACES)),
    **texts_of("create assessments", assessment_sql.CREATE),
}


@pytest.fixture(scope="module")
def url(databases: Databases) -> PostgresURL:
    return databases.migrated("postgresql").url


@pytest.mark.parametrize("statement", STATEMENTS)
async def test_no_write_reads_a_whole_table(url: PostgresURL, statement: str) -> None:
    store = PostgresDatabase(url, queue_limit=10)
    try:
        writer = await store._writer.connection()
        assert await writer.fetchval("SHOW plan_cache_mode") == "force_generic_plan"
        await writer.execute(f"PREPARE explained AS {STATEMENTS[statement]}")
        nulls = ", ".join(["NULL"] * len(set(re.findall(r"\$\d+", STATEMENTS[statement]))))
        plan = [row[0] for row in await writer.fetch(f"EXPLAIN EXECUTE explained ({nulls})")]
    finally:
        await store.close()
    assert not [line for line in plan if "Seq Scan" in line], "\n".join(plan)
    # nor the whole of an index
    for line, following in itertools.pairwise(plan):
        assert not re.search("Index (Only )?Scan", line) or "Index Cond" in following, "\n".join(plan)
