"""A chart looks up the steps that it shows, also where the points of a run lie together and all seem cheap to read."""

from __future__ import annotations

from headrace.db.connections import READING, connect
from headrace.db.query import Dialect
from headrace.resources.metrics import sql
from tests.support.databases import Databases

# in the order of the index, as after CLUSTER; runs of a few hundred points are read whole, which costs no more
FILL = (
    "INSERT INTO runs (run_uuid, experiment_id) SELECT md5(r::text), 0 FROM generate_series(1, 40) r",
    "INSERT INTO metrics (run_uuid, key, value, timestamp, step, is_nan)"
    " SELECT md5(r::text), 'loss', 1, s, s, false FROM generate_series(1, 40) r, generate_series(1, 1000) s",
    "CLUSTER metrics USING index_metrics_run_uuid_key_step",
    "ANALYZE metrics",
)


async def test_steps_are_looked_up_with_a_plan_that_is_kept(databases: Databases) -> None:
    database = databases.migrated("postgresql")
    for statement in FILL:
        database.execute(statement)
    query = sql.metric_at_steps("a" * 32, "loss", [1, 250, 1000], Dialect.POSTGRESQL)
    connection = await connect(database.url, READING)
    try:
        await connection.execute(f"SET plan_cache_mode = force_generic_plan; PREPARE chart AS {query.text}")
        nulls = ", ".join(["NULL"] * len(query.values))
        plan = "\n".join(row[0] for row in await connection.fetch(f"EXPLAIN EXECUTE chart ({nulls})"))
    finally:
        await connection.close()
    assert "index_metrics_run_uuid_key_step" in plan, plan
    assert "Filter" not in plan, plan
