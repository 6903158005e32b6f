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
from tests.support.databases import Database

OLD, YOUNG = 1_000_000, 2_000_000
# every table that has rows of a run, an experiment, a model or a trace
TABLES = (
    "runs", "metrics", "latest_metrics", "params", "tags", "inputs", "input_tags", "datasets", "entity_associations",
    "experiments", "experiment_tags", "logged_models", "logged_model_params", "logged_model_tags",
    "logged_model_metrics", "trace_info", "trace_tags", "spans", "online_scoring_configs", "scorers",
)  # fmt: skip


def run_id(letter: str) -> str:
    return letter * 32


def model_id(letter: str) -> str:
    return "m-" + letter * 32


class World:
    """A database with a folder of artifacts."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.database, self.folder = database, folder

    def insert(self, table: str, **values: object) -> None:
        texts = [str(value).lower() if isinstance(value, int) else f"'{value}'" for value in values.values()]
        self.database.execute(f"INSERT INTO {table} ({', '.join(values)}) VALUES ({', '.join(texts)})")

    def experiment(self, number: int, deleted: int | None = None) -> None:
        stage = "active" if deleted is None else "deleted"
        self.insert(
            "experiments", experiment_id=number, name=f"e{number}", lifecycle_stage=stage, workspace="default",
            artifact_location=f"mlflow-artifacts:/{number}", last_update_time=deleted or YOUNG,
        )  # fmt: skip
        self.insert("experiment_tags", experiment_id=number, key="k", value="v")
        self.insert(
            "datasets", dataset_uuid=f"d{number}", experiment_id=number, name="d", digest="1",
            dataset_source_type="t", dataset_source="s",
        )  # fmt: skip
        self.insert("trace_info", request_id=f"t{number}", experiment_id=number, timestamp_ms=1, status="OK")
        self.insert("trace_tags", request_id=f"t{number}", key="k", value="v")
        self.insert(
            "spans", trace_id=f"t{number}", experiment_id=number, span_id="s", status="OK", start_time_unix_nano=1,
            content="{}",
        )  # fmt: skip
        self.insert("scorers", experiment_id=number, scorer_name="s", scorer_id=f"s{number}")
        self.insert(
            "online_scoring_configs", online_scoring_config_id=f"o{number}", scorer_id=f"s{number}", sample_rate=1,
            experiment_id=number,
        )  # fmt: skip
        self.insert(
            "entity_associations", association_id=f"e{number}", source_type="evaluation_dataset", source_id="1",
            destination_type="experiment", destination_id=number, created_time=1,
        )  # fmt: skip

    def run(self, letter: str, experiment: int, deleted: int | None = None, metrics: int = 3) -> None:
        uri = f"mlflow-artifacts:/{experiment}/{run_id(letter)}/artifacts"
        self.insert(
            "runs", run_uuid=run_id(letter), experiment_id=experiment, artifact_uri=uri, status="FINISHED",
            source_type="LOCAL", lifecycle_stage="active" if deleted is None else "deleted",
        )  # fmt: skip
        if deleted is not None:
            self.database.execute(f"UPDATE runs SET deleted_time = {deleted} WHERE run_uuid = '{run_id(letter)}'")
        rows = ", ".join(f"('{run_id(letter)}', 'm', 1, {step}, {step}, false)" for step in range(metrics))
        self.database.execute(f"INSERT INTO metrics (run_uuid, key, value, timestamp, step, is_nan) VALUES {rows}")
        self.insert("latest_metrics", run_uuid=run_id(letter), key="m", value=1, timestamp=1, step=1, is_nan=False)
        self.insert("params", run_uuid=run_id(letter), key="p", value="v")
        self.insert("tags", run_uuid=run_id(letter), key="t", value="v")
        self.insert(
            "inputs", input_uuid=f"i{letter}", source_type="DATASET", source_id=f"d{experiment}",
            destination_type="RUN", destination_id=run_id(letter),
        )  # fmt: skip
        self.insert("input_tags", input_uuid=f"i{letter}", name="k", value="v")
        self.insert(
            "entity_associations", association_id=f"r{letter}", source_type="trace", source_id=f"t{experiment}",
            destination_type="run", destination_id=run_id(letter), created_time=1,
        )  # fmt: skip
        self.file(f"{experiment}/{run_id(letter)}/artifacts/deep/file")

    def model(self, letter: str, experiment: int, deleted: int | None = None) -> None:
        self.insert(
            "logged_models", model_id=model_id(letter), experiment_id=experiment, name="m",
            artifact_location=f"mlflow-artifacts:/{experiment}/models/{model_id(letter)}/artifacts",
            creation_timestamp_ms=1, last_updated_timestamp_ms=deleted or YOUNG, status=1,
            lifecycle_stage="active" if deleted is None else "deleted",
        )  # fmt: skip
        for table in ("param", "tag"):
            values = {f"{table}_key": "k", f"{table}_value": "v"}
            self.insert(f"logged_model_{table}s", model_id=model_id(letter), experiment_id=experiment, **values)
        self.file(f"{experiment}/models/{model_id(letter)}/artifacts/MLmodel")

    def version(self, name: str, source: str, run: str = "") -> None:
        self.insert("registered_models", name=name, workspace="default")
        self.insert(
            "model_versions", name=name, version=1, workspace="default", source=source, run_id=run,
            current_stage="None", status="READY",
        )  # fmt: skip

    def file(self, path: str) -> None:
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text("x")

    @property
    def files(self) -> list[str]:
        return sorted(str(file.relative_to(self.folder)) for file in self.folder.rglob("*") if file.is_file())

    def rows(self) -> dict[str, int]:
        return {table: self.database.query(f"SELECT count(*) AS n FROM {table}")[0]["n"] for table in TABLES}


@pytest.fixture
def world(database: Database, tmp_path: Path) -> World:
    return World(database, tmp_path / "artifacts")


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
