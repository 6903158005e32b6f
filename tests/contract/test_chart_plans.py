"""Histories and charts find their points by an index, whole in it or also where reading all of a run seems cheap."""

from __future__ import annotations

import pytest

from headrace.db import postgres_indexes
from headrace.db.connections import READING, connect
from headrace.db.indexes import HISTORIES
from headrace.db.query import Dialect, Query
from headrace.resources.metrics import sql
from tests.support.databases import Database, Databases

INDEX = HISTORIES.name
RUN = "a" * 32
STEPS = [1, 250, 1000]
FILL = (
    "INSERT INTO runs (run_uuid, experiment_id) SELECT md5(r::text), 0 FROM generate_series(1, 40) r",
    "INSERT INTO metrics (run_uuid, key, value, timestamp, step, is_nan)"
    " SELECT md5(r::text), 'loss', 1, s, s, false FROM generate_series(1, 40) r, generate_series(1, 1000) s",
)
# runs of a few hundred points are read whole, which costs no more
TOGETHER = (f"CLUSTER metrics USING {INDEX}", "ANALYZE metrics")


async def test_steps_are_looked_up_with_a_plan_that_is_kept(databases: Databases) -> None:
    database = databases.migrated("postgresql")
    await execute(database, *FILL, *TOGETHER)
    plan = await kept_plan(database, sql.metric_at_steps(RUN, "loss", STEPS, Dialect.POSTGRESQL))
    assert INDEX in plan, plan
    assert "Filter" not in plan, plan


@pytest.mark.parametrize(
    "query",
    [
        pytest.param(sql.metric_history(RUN, "loss", 1000, 0, Dialect.POSTGRESQL), id="history"),
        pytest.param(sql.metric_shape(RUN, "loss", None, Dialect.POSTGRESQL), id="shape of a chart"),
        pytest.param(sql.metric_at_steps(RUN, "loss", STEPS, Dialect.POSTGRESQL), id="points of a chart"),
    ],
)
async def test_the_index_has_all_of_a_history(databases: Databases, query: Query) -> None:
    database = databases.migrated("postgresql")
    await execute(database, *FILL)
    await postgres_indexes.build_or_fail(database.url)
    await execute(database, "VACUUM ANALYZE metrics")
    plan = await kept_plan(database, query)
    assert f"Index Only Scan using {INDEX}" in plan, plan
    assert "Heap Scan" not in plan, plan


async def execute(database: Database, *statements: str) -> None:
    """Each in a transaction of its own, as psql does it."""
    connection = await connect(database.url, READING)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


async def kept_plan(database: Database, query: Query) -> str:
    """The plan that PostgreSQL keeps for any values."""
    connection = await connect(database.url, READING)
    try:
        await connection.execute(f"SET plan_cache_mode = force_generic_plan; PREPARE asked AS {query.text}")
        nulls = ", ".join(["NULL"] * len(query.values))
        return "\n".join(row[0] for row in await connection.fetch(f"EXPLAIN EXECUTE asked ({nulls})"))
    finally:
        await connection.close()
