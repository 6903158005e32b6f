"""Writes find their rows by key on PostgreSQL, with the plans that it keeps from when the tables were empty, too."""

from __future__ import annotations

import itertools
import re

import pytest

from headrace.database_url import PostgresURL
from headrace.db.postgres import PostgresDatabase
from headrace.resources.logged_models import sql as model_sql
from headrace.resources.runs import write_sql_postgres as sql
from tests.support.databases import Databases

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
}


@pytest.fixture(scope="module")
def url(databases: Databases) -> PostgresURL:
    return databases.migrated("postgresql").url


@pytest.mark.parametrize("statement", STATEMENTS)
async def test_no_write_reads_a_whole_table(url: PostgresURL, statement: str) -> None:
    store = PostgresDatabase(url, queue_limit=10)
    try:
        writer = await store._writing()
        await writer.execute("SET plan_cache_mode = force_generic_plan")
        await writer.execute(f"PREPARE explained AS {STATEMENTS[statement]}")
        nulls = ", ".join(["NULL"] * len(set(re.findall(r"\$\d+", STATEMENTS[statement]))))
        plan = [row[0] for row in await writer.fetch(f"EXPLAIN EXECUTE explained ({nulls})")]
    finally:
        await store.close()
    assert not [line for line in plan if "Seq Scan" in line], "\n".join(plan)
