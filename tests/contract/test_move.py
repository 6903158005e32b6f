"""A run that moves to another experiment takes with it what is its own, and leaves nothing behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.copy.files import Place
from headrace.copy.move import Moved, Mover
from headrace.copy.report import Left
from headrace.db.database import Database as Store
from headrace.errors import ConfigurationError
from tests.contract.copying import Artifacts, Ends, model_id, run_id
from tests.support.databases import Database


@pytest.fixture
def world(database: Database, tmp_path: Path) -> Artifacts:
    """Experiment 3 with run a, whose are a model, a trace, a dataset and a version, and run b; and experiment 4."""
    ends = Ends(database, database, tmp_path)
    made = Artifacts(ends)
    ends.experiment(4, "other", artifact_location="mlflow-artifacts:/4")
    ends.experiment(5, "deleted", lifecycle_stage="deleted")
    database.execute(f"UPDATE logged_models SET source_run_id = '{run_id('a')}'")
    ends.insert("trace_request_metadata", request_id="t", key="mlflow.sourceRun", value=run_id("a"))
    ends.insert("datasets", experiment_id=3, dataset_uuid="d", name="d", digest="1")
    kinds = {"source_type": "DATASET", "source_id": "d", "destination_type": "RUN"}
    for letter in "ab":
        ends.insert("inputs", input_uuid=f"i{letter}", destination_id=run_id(letter), **kinds)
    ends.of_model()
    return made


async def move(world: Artifacts, store: Store, *letters: str, to: str = "other", dry: bool = False) -> Moved:
    return await Mover(store, Place(str(world.folder)), dry).move([run_id(each) for each in letters], to)


def files(world: Artifacts) -> list[str]:
    return sorted(str(file.relative_to(world.folder)) for file in world.folder.rglob("*") if file.is_file())


async def test_all_that_is_a_runs_own_goes_with_it(world: Artifacts, store: Store, database: Database) -> None:
    before = world.ends.rows(database)
    expected = Moved([run_id("a")], logged_models=1, traces=1, files=4)
    assert await move(world, store, "a", dry=True) == expected
    assert (world.ends.rows(database), files(world)) == (before, sorted(f"3/{path}" for path in world.paths))
    assert await move(world, store, "a") == expected
    assert files(world) == sorted(f"4/{path}" for path in world.paths)
    for table in ("runs", "logged_models", "logged_model_params", "logged_model_metrics", "trace_info", "spans",
                  "assessments"):  # fmt: skip
        which = "WHERE run_uuid <> :b" if table == "runs" else ""
        found = database.query(
            f"SELECT experiment_id AS id FROM {table} {which}", **({"b": run_id("b")} if which else {})
        )
        assert found == [{"id": 4}], table
    root = "mlflow-artifacts:/4"
    assert world.locations() == {
        f"{root}/{run_id('a')}/artifacts", f"mlflow-artifacts:/3/{run_id('b')}/artifacts",
        f"{root}/traces/t/artifacts", f"{root}/models/{model_id('a')}/artifacts",
        f"{root}/models/{model_id('a')}/artifacts/", f"{root}/{run_id('a')}/artifacts/model",
    }  # fmt: skip
    datasets = database.query(
        "SELECT d.experiment_id AS experiment, d.name, i.destination_id AS run FROM inputs i "
        "JOIN datasets d ON d.dataset_uuid = i.source_id ORDER BY 1"
    )
    assert [tuple(row.values()) for row in datasets] == [(3, "d", run_id("b")), (4, "d", run_id("a"))]
    of_metric = database.query(
        "SELECT d.experiment_id AS experiment FROM logged_model_metrics m JOIN datasets d USING (dataset_uuid)"
    )
    assert of_metric == [{"experiment": 4}]
    assert (await move(world, store, "a")).left == [Left("run", run_id("a"), "is there already")]
    # and back, where its dataset is already
    assert (await move(world, store, "a", to="e3")).runs == [run_id("a")]
    after = world.ends.rows(database)
    assert {table for table in after if after[table] != before[table]} == {"datasets"}
    assert len(after["datasets"]) == 2
    assert files(world) == sorted(f"3/{path}" for path in world.paths)


async def test_nested_runs_go_along_and_what_has_not_ended_stays(
    world: Artifacts, store: Store, database: Database
) -> None:
    world.ends.insert("tags", run_uuid=run_id("b"), key="mlflow.parentRunId", value=run_id("a"))
    world.ends.run("c", 3, status="RUNNING")
    moved = await move(world, store, "c", "a", "d")
    assert moved.runs == [run_id("a"), run_id("b")]
    assert moved.left == [
        Left("run", run_id("c"), "has not ended: its client goes on writing to where it began"),
        Left("run", run_id("d"), "is not there"),
    ]
    for to in ("none", "deleted", "5"):
        with pytest.raises(ConfigurationError, match=f"There are 0 experiments '{to}' that are not deleted"):
            await move(world, store, "c", to=to)


async def test_where_files_can_not_move_a_run_stays(world: Artifacts, store: Store, database: Database) -> None:
    database.execute(
        f"UPDATE runs SET artifact_uri = 'gs://b/3/{run_id('a')}/artifacts' WHERE run_uuid = '{run_id('a')}'"
    )
    before = world.ends.rows(database)
    ((kind, which),) = [(left.kind, left.id) for left in (await move(world, store, "a")).left]
    assert (kind, which) == ("run", run_id("a"))
    assert world.ends.rows(database) == before
    assert (await Mover(store, None, False).move([run_id("a")], "4")).runs == [run_id("a")]
    assert database.query("SELECT count(*) AS n FROM runs WHERE artifact_uri LIKE 'gs:%'") == [{"n": 1}]
