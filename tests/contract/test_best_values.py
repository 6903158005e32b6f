"""The best values of an experiment's metrics: of all points, of active runs alone."""

from __future__ import annotations

from headrace.db.database import Database as Store
from headrace.pages import sql
from tests.contract.world import YOUNG, World, run_id


async def test_best_values(world: World, store: Store) -> None:
    world.experiment(1)
    world.experiment(2)
    world.run("a", 1)
    world.run("b", 1)
    world.run("c", 1, deleted=YOUNG)
    world.run("d", 2)
    points = (("a", 0.5, 0), ("a", -2.0, 1), ("b", 7.0, 0), ("c", 99.0, 0), ("d", -99.0, 0))
    for letter, value, step in points:
        world.insert("metrics", run_uuid=run_id(letter), key="k", value=value, timestamp=1, step=step, is_nan=False)
    world.insert("metrics", run_uuid=run_id("a"), key="k", value=0, timestamp=1, step=2, is_nan=True)
    world.database.execute("UPDATE runs SET start_time = CASE WHEN run_uuid LIKE 'a%' THEN 2 ELSE 1 END")
    rows = [tuple(row) for row in await store.rows(sql.EXTREMES(experiment_id=1, most=10))]
    assert rows == [
        ("k", -2.0, run_id("a"), 7.0, run_id("b"), 2),
        ("m", 1.0, run_id("a"), 1.0, run_id("a"), 2),
    ]
    assert [row[0] for row in await store.rows(sql.EXTREMES(experiment_id=1, most=1))] == ["k"]
    latest = [(row["key"], row["value"], row["run_uuid"]) for row in await store.rows(sql.LATEST(experiment_id=1))]
    assert latest == [("m", 1.0, run_id("a"))]
