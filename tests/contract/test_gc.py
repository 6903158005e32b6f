"""What was deleted goes for good, rows and files, and nothing else; broken off it goes on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from headrace.artifacts.locations import Locations
from headrace.artifacts.store import ArtifactStore
from headrace.db.database import Database as Store
from headrace.errors import Unavailable
from headrace.gc import collector
from headrace.gc.collector import Collector, Kept, Named, Report
from headrace.settings import Settings
from tests.contract.world import OLD, YOUNG, World, model_id, run_id

Collect = Callable[..., Awaitable[Report]]


@pytest.fixture
def collect(store: Store, world: World) -> Collect:
    locations = Locations(Settings(artifacts_destination=str(world.folder)), {})

    async def run(named: Named | None = None, dry: bool = False, registered_too: bool = False) -> Report:
        made = Collector(store, locations, OLD, dry=dry, registered_too=registered_too)
        return await made.collect(named or Named())

    return run


async def test_what_was_deleted_goes_and_nothing_else(world: World, collect: Collect) -> None:
    world.experiment(1)
    world.run("a", 1)
    world.run("b", 1, deleted=YOUNG)
    world.model("a", 1)
    world.model("b", 1, deleted=YOUNG)
    rows, files = world.rows(), world.files
    world.run("c", 1, deleted=OLD)
    world.model("c", 1, deleted=OLD)
    world.experiment(2, deleted=OLD)
    world.run("d", 2, deleted=OLD)
    world.run("e", 2, deleted=YOUNG)
    world.model("d", 2)
    world.file("2/traces/t2/artifacts/traces.json")
    everything = world.rows(), world.files

    expected = Report(experiments=1, runs=3, metrics=9, logged_models=2, traces=1, kept=[])
    assert await collect(dry=True) == expected
    assert (world.rows(), world.files) == everything
    assert await collect() == expected
    assert (world.rows(), world.files) == (rows, files)
    assert not (world.folder / "2").exists()
    assert await collect() == Report(kept=[])


@pytest.mark.parametrize(
    "source", ["runs:/{run}/model", "mlflow-artifacts:/1/{run}/artifacts/model", "models:/{model}",
               "s3://bucket/1/models/{model}/artifacts"],
)  # fmt: skip
async def test_what_a_registered_version_is_loaded_from_stays(world: World, collect: Collect, source: str) -> None:
    world.experiment(1, deleted=OLD)
    world.run("a", 1, deleted=OLD)
    world.run("b", 1, deleted=OLD)
    world.model("a", 1, deleted=OLD)
    world.version("churn", source.format(run=run_id("a"), model=model_id("a")))
    kept = (await collect()).kept
    which = Kept("logged model", model_id("a"), "churn version 1 is loaded from it")
    if "run" in source:
        which = Kept("run", run_id("a"), which.reason)
    assert kept == [Kept("experiment", "1", f"holds {which.id}: {which.reason}"), which]
    assert any(which.id in file for file in world.files)
    assert not any(run_id("b") in file for file in world.files)
    assert (await collect(registered_too=True)).experiments == 1
    assert world.files == []


async def test_a_version_says_its_run(world: World, collect: Collect) -> None:
    world.experiment(1)
    world.run("a", 1, deleted=OLD)
    world.version("churn", "s3://elsewhere/model", run=run_id("a"))
    assert (await collect()).kept == [Kept("run", run_id("a"), "churn version 1 is loaded from it")]


async def test_an_experiment_with_active_runs_stays(world: World, collect: Collect) -> None:
    world.experiment(1, deleted=OLD)
    world.run("a", 1)
    world.database.execute(
        "UPDATE experiments SET lifecycle_stage = 'deleted', last_update_time = 1 WHERE experiment_id = 0"
    )
    before = world.rows(), world.files
    assert (await collect()).kept == [
        Kept("experiment", "0", "is the one that clients log to when they name none"),
        Kept("experiment", "1", "has 1 runs that are not deleted"),
    ]
    assert (world.rows(), world.files) == before


@pytest.mark.parametrize("uri", ["gs://bucket/1/{run}/artifacts", "mlflow-artifacts:/1/artifacts", "", "/"])
async def test_where_the_files_can_not_be_deleted_the_rows_stay(world: World, collect: Collect, uri: str) -> None:
    world.experiment(1)
    world.run("a", 1, deleted=OLD)
    world.database.execute(f"UPDATE runs SET artifact_uri = '{uri.format(run=run_id('a'))}'")
    before = world.rows(), world.files
    ((kind, which, reason),) = [(each.kind, each.id, each.reason) for each in (await collect()).kept]
    assert (kind, which) == ("run", run_id("a"))
    assert reason.startswith("its files are at ")
    assert (world.rows(), world.files) == before
    assert world.database.query("SELECT deleted_time FROM runs") == [{"deleted_time": OLD}], "it can be restored"


async def test_a_link_is_not_followed(world: World, collect: Collect, tmp_path: Path) -> None:
    world.experiment(1)
    world.run("a", 1, deleted=OLD)
    own = world.folder / "1" / run_id("a")
    own.rename(tmp_path / "elsewhere")
    own.symlink_to(tmp_path / "elsewhere")
    assert (await collect()).runs == 1
    assert (tmp_path / "elsewhere/artifacts/deep/file").exists()
    assert not own.is_symlink()


async def test_what_is_named_alone_goes(world: World, collect: Collect) -> None:
    world.experiment(1, deleted=OLD)
    world.experiment(2, deleted=OLD)
    world.run("a", 1, deleted=OLD)
    world.run("b", 2, deleted=OLD)
    world.run("c", 2, deleted=YOUNG)
    world.run("d", 2)
    report = await collect(Named([1], [run_id(letter) for letter in "bcd"] + ["none"], [model_id("x")]))
    assert (report.experiments, report.runs) == (1, 2)
    assert report.kept == [
        Kept("run", "none", "is not there"),
        Kept("run", run_id("c"), "was deleted later than that"),
        Kept("run", run_id("d"), "is not deleted: delete it first"),
        Kept("logged model", model_id("x"), "is not there"),
    ]


async def test_broken_off_it_goes_on(
    world: World, store: Store, collect: Collect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it had just done: what is half gone can't be restored, and goes at the next time."""
    world.experiment(1)
    rows = world.rows()
    world.run("a", 1, deleted=OLD, metrics=20)
    world.experiment(2, deleted=OLD)
    world.run("b", 2, deleted=OLD, metrics=20)
    monkeypatch.setattr(collector, "METRICS_AT_ONCE", 7)
    transact, left = type(store).transact, 0

    async def away_after(self: Store, statements: object) -> object:
        nonlocal left
        left -= 1
        if left < 0:
            raise Unavailable("The database is away.")
        return await transact(self, statements)  # type: ignore[arg-type]

    monkeypatch.setattr(type(store), "transact", away_after)
    times = 0
    while times == 0 or world.rows() != rows:
        times += 1
        left = times % 8  # transactions
        try:
            await collect()
        except Unavailable:
            assert times < 40
    assert times > 5
    assert world.files == []


async def test_a_store_that_fails_leaves_the_rows(
    world: World, collect: Collect, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.experiment(1)
    world.run("a", 1, deleted=OLD)
    found = Locations.find

    def failing(self: Locations, uri: str) -> tuple[ArtifactStore, str]:
        store, path = found(self, uri)

        async def fails(path: str) -> None:
            raise Unavailable("S3 can't be reached.")

        monkeypatch.setattr(store, "delete", fails)
        return store, path

    with monkeypatch.context() as patch:
        patch.setattr(Locations, "find", failing)
        report = await collect()
    assert report.kept == [Kept("run", run_id("a"), "S3 can't be reached. The next gc goes on with it.")]
    assert (await collect()).runs == 1
    assert world.files == []
