"""A copy has all that its source has, between both databases; started again it adds what is missing, and no more."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from headrace.artifacts.local import LocalStore
from headrace.copy import copier, postgres, sqlite
from headrace.copy.report import Left, Mapped, Report
from headrace.db import schema
from headrace.errors import ConfigurationError, Unavailable
from tests.contract.copying import COPIED, NOT_COPIED, VALUES, Artifacts, Ends, model_id, run_id
from tests.support.databases import BACKENDS, Databases


@pytest.fixture(params=[f"{source} to {target}" for source in BACKENDS for target in BACKENDS])
def ends(request: pytest.FixtureRequest, databases: Databases, tmp_path: Path) -> Ends:
    source, _, target = request.param.partition(" to ")
    return Ends(databases.migrated(source), databases.migrated(target), tmp_path)


@pytest.fixture(params=BACKENDS)
def onto(request: pytest.FixtureRequest, databases: Databases, tmp_path: Path) -> Ends:
    """From SQLite, where the source does not matter."""
    return Ends(databases.migrated("sqlite"), databases.migrated(request.param), tmp_path)


def test_every_table_is_copied_or_told() -> None:
    assert {*COPIED, *NOT_COPIED} == schema.TABLES.keys()


async def test_all_of_it_and_never_twice(ends: Ends) -> None:
    ends.everything()
    before = ends.rows(ends.source)
    assert all(before.values())
    counted: dict[str, Any] = {
        "experiments": 2, "runs": 3, "metrics": 15, "logged_models": 1, "traces": 1, "registered_models": 1,
        "model_versions": 1, "evaluation_datasets": 1,
    }  # fmt: skip
    assert await ends.copy(dry=True) == Report(**counted)
    assert not any(ends.rows(ends.target).values())
    assert await ends.copy() == Report(**counted)
    assert ends.rows(ends.target) == ends.rows(ends.source) == before
    assert await ends.copy() == Report()
    assert ends.rows(ends.target) == before
    ids = ends.target.query("SELECT max(experiment_id) AS id FROM experiments")
    assert ids == [{"id": 5}]
    ends.target.execute(
        "INSERT INTO experiments (name, lifecycle_stage, workspace) VALUES ('new', 'active', 'default')"
    )
    assert ends.target.query("SELECT experiment_id FROM experiments WHERE name = 'new'") == [{"experiment_id": 6}]


async def test_what_is_there_gets_what_it_lacks_and_stays_what_it_is(ends: Ends) -> None:
    ends.experiment(3)
    ends.run("a", 3, status="RUNNING", end_time=None)
    ends.run("b", 3)
    await ends.copy()
    ends.target.execute("UPDATE tags SET value = 'edited'")
    ends.source.execute("UPDATE runs SET status = 'FINISHED', end_time = 5, name = 'ended'")
    for letter in "ab":
        ends.metric(letter, "loss", 4.5, 3)
        ends.insert("params", run_uuid=run_id(letter), key="later")
    ends.source.execute("UPDATE latest_metrics SET value = 4.5, step = 3, timestamp = 3")
    assert await ends.copy() == Report(metrics=2, completed=2)
    before, after = ends.rows(ends.source), ends.rows(ends.target)
    assert [table for table in COPIED if before[table] != after[table]] == ["runs", "tags"]
    runs = ends.target.query("SELECT name, status FROM runs ORDER BY run_uuid")
    assert runs == [{"name": "ended", "status": "FINISHED"}, {"name": VALUES["text"], "status": "FINISHED"}]
    assert await ends.copy() == Report()


async def test_an_experiment_is_found_by_its_name_and_ids_are_kept_where_they_are_free(onto: Ends) -> None:
    for number, name in ((3, "churn"), (4, "other"), (10**17, "large")):
        onto.experiment(number, name)
    onto.insert("datasets", experiment_id=3, dataset_uuid="d", name="d", digest="1")
    onto.run("a", 3)
    onto.run("b", 4)
    onto.trace("t", 4)
    kinds = {"source_type": "DATASET", "source_id": "d", "destination_type": "RUN"}
    onto.insert("inputs", input_uuid="i", destination_id=run_id("a"), **kinds)
    onto.experiment(7, "churn", onto.target, artifact_location="file:///theirs")
    onto.experiment(4, "theirs", onto.target)
    onto.insert("datasets", onto.target, experiment_id=7, dataset_uuid="theirs", name="d", digest="1")
    report = await onto.copy()
    assert report.mapped == [
        Mapped("experiment", "3", "7"), Mapped("experiment", "4", "8"), Mapped("experiment", str(10**17), "9"),
    ]  # fmt: skip
    found = onto.target.query("SELECT experiment_id AS id, name FROM experiments WHERE experiment_id > 0 ORDER BY id")
    assert [tuple(row.values()) for row in found] == [(4, "theirs"), (7, "churn"), (8, "other"), (9, "large")]
    assert onto.target.query("SELECT experiment_id AS id FROM runs ORDER BY run_uuid") == [{"id": 7}, {"id": 8}]
    for table in ("trace_info", "spans", "assessments"):
        assert onto.target.query(f"SELECT experiment_id AS id FROM {table}") == [{"id": 8}]
    assert onto.target.query("SELECT source_id FROM inputs") == [{"source_id": "theirs"}]
    assert (await onto.copy()).runs == 0


async def test_versions_get_the_next_number_and_an_alias_stays(onto: Ends) -> None:
    onto.version(1, run=run_id("a"), creation_time=1)
    onto.version(2, run=run_id("b"), creation_time=2)
    onto.insert("registered_model_aliases", name="churn", version=1, alias="prod", workspace="default")
    onto.insert("registered_model_aliases", name="churn", version=1, alias="new", workspace="default")
    onto.version(1, onto.target, run=run_id("f"), creation_time=9)
    onto.insert("registered_model_aliases", onto.target, name="churn", version=1, alias="prod", workspace="default")
    expected = Report(
        model_versions=2, mapped=[Mapped("version of churn", "1", "3")],
        left=[Left("alias of churn", "prod", "it is of version 1 at the target")],
    )  # fmt: skip
    assert await onto.copy() == expected
    expected.model_versions = 0
    assert await onto.copy() == expected
    versions = onto.target.query("SELECT version, run_id FROM model_versions ORDER BY version")
    assert [tuple(row.values()) for row in versions] == [(1, run_id("f")), (2, run_id("b")), (3, run_id("a"))]
    aliases = onto.target.query("SELECT alias, version FROM registered_model_aliases ORDER BY alias")
    assert aliases == [{"alias": "new", "version": 3}, {"alias": "prod", "version": 1}]


async def test_one_experiment_with_its_models_into_another(onto: Ends) -> None:
    for number, letter in ((3, "a"), (4, "b")):
        onto.experiment(number)
        onto.run(letter, number)
        onto.version(number, run=run_id(letter))
    onto.experiment(1, "gone", onto.target, lifecycle_stage="deleted")
    report = await onto.copy("e3", into="gone")
    assert report.left == [
        Left("experiment", "e3", "gone is deleted at the target. Restore it, or name another --into")
    ]
    assert report.runs == report.model_versions == 0
    report = await onto.copy("e3", into="mine")
    assert (report.experiments, report.runs, report.model_versions) == (1, 1, 1)
    assert onto.target.query("SELECT name FROM experiments WHERE experiment_id = 3") == [{"name": "mine"}]
    assert onto.target.query("SELECT version FROM model_versions") == [{"version": 3}]
    with pytest.raises(ConfigurationError, match="There is no experiment 'x' in sqlite:"):
        await onto.copy("x")


async def test_how_much_a_scorer_judges_where_the_experiment_has_another_number(onto: Ends) -> None:
    onto.experiment(3)
    onto.experiment(3, "other", onto.target)
    onto.insert("scorers", experiment_id=3, scorer_id="s", scorer_name="s")
    onto.insert("online_scoring_configs", experiment_id=3, online_scoring_config_id="c", scorer_id="s")
    await onto.copy()
    numbers = onto.target.query(
        "SELECT e.name FROM online_scoring_configs c JOIN scorers s ON s.scorer_id = c.scorer_id"
        " JOIN experiments e ON e.experiment_id = s.experiment_id AND e.experiment_id = c.experiment_id"
    )
    assert numbers == [{"name": "e3"}]


async def test_what_postgresql_refuses_is_told_and_the_others_are_copied(databases: Databases, tmp_path: Path) -> None:
    ends = Ends(databases.migrated("sqlite"), databases.migrated("postgresql"), tmp_path)
    ends.experiment(3)
    for letter in "abc":
        ends.run(letter, 3)
    ends.insert("params", run_uuid=run_id("b"), key="nul", value="a\0b")
    report = await ends.copy()
    assert report.runs == 2
    ((kind, which),) = [(each.kind, each.id) for each in report.left]
    assert (kind, which) == ("run", run_id("b"))
    assert len(ends.target.query("SELECT * FROM metrics")) == 6


async def test_broken_off_it_goes_on(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it had just done: what is there is whole, and the next time goes on."""
    monkeypatch.setattr(copier, "IDS_AT_ONCE", 1)
    ends.everything()
    before, times, left = ends.rows(ends.source), 0, 0
    for writer in (sqlite.SqliteStore, postgres.PostgresWriter):
        put = writer.put

        async def away_after(self: Any, *given: Any, put: Any = put, **more: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                raise Unavailable("The database is away.")
            return await put(self, *given, **more)

        monkeypatch.setattr(writer, "put", away_after)
    while True:
        times += 1
        left = times * 7
        try:
            await ends.copy()
            break
        except Unavailable:
            runs = ends.target.query("SELECT run_uuid FROM runs")
            assert all(
                len(ends.target.query("SELECT * FROM params WHERE run_uuid = :run", run=row["run_uuid"]))
                for row in runs
            )
    assert times > 5
    assert ends.rows(ends.target) == before


async def test_files_are_copied_and_where_they_are_is_said_anew(onto: Ends) -> None:
    artifacts = Artifacts(onto)
    onto.experiment(3, "theirs", onto.target)  # another id, so another folder
    with pytest.raises(ConfigurationError, match="behind the source's server"):
        await onto.copy("e3", artifacts=True)
    given: dict[str, Any] = {"artifacts": True, "source_artifacts": str(artifacts.folder)}
    size = sum(len(path.encode()) for path in artifacts.paths)
    dry = await onto.copy(**given, dry=True)
    assert (dry.files, dry.bytes, artifacts.copied()) == (4, size, {})
    report = await onto.copy(**given)
    assert (report.runs, report.logged_models, report.traces, report.files, report.bytes) == (2, 1, 1, 4, size)
    assert artifacts.copied() == {f"4/{path}": path for path in artifacts.paths}
    root = "mlflow-artifacts:/4"
    assert artifacts.locations() == {
        f"{root}/{run_id('a')}/artifacts", f"{root}/{run_id('b')}/artifacts", f"{root}/traces/t/artifacts",
        f"{root}/models/{model_id('a')}/artifacts", f"{root}/models/{model_id('a')}/artifacts/",
        f"{root}/{run_id('a')}/artifacts/model",
    }  # fmt: skip
    assert (await onto.copy(**given)).files == 0
    (artifacts.target / "4" / artifacts.paths[0]).unlink()
    (artifacts.folder / "3" / run_id("b") / "artifacts").mkdir(parents=True)
    (artifacts.folder / "3" / run_id("b") / "artifacts/later").write_text("x")
    assert (await onto.copy(**given)).files == 2


async def test_files_that_headrace_does_not_read_stay_and_that_is_told(onto: Ends) -> None:
    artifacts = Artifacts(onto, "gs://bucket/3")
    report = await onto.copy(artifacts=True)
    assert [(each.kind, each.id) for each in report.left] == [
        ("files of run", run_id("a")), ("files of run", run_id("b")), ("files of logged model", model_id("a")),
        ("files of trace", "t"),
    ]  # fmt: skip
    assert report.runs == 2
    assert all(uri.startswith("gs://bucket/3/") for uri in artifacts.locations())


async def test_a_file_that_comes_out_different_leaves_its_run(onto: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    artifacts = Artifacts(onto)
    given: dict[str, Any] = {"artifacts": True, "source_artifacts": str(artifacts.folder)}
    create = LocalStore.create

    async def damaged(self: LocalStore, path: str) -> Any:
        upload = await create(self, path)
        write = upload.write

        async def writes(chunks: Any, size: int | None) -> None:
            async def changed() -> Any:
                async for chunk in chunks:
                    yield chunk.replace(b"model", b"medal")

            await write(changed(), size)

        monkeypatch.setattr(upload, "write", writes)
        return upload

    with monkeypatch.context() as patch:
        patch.setattr(LocalStore, "create", damaged)
        report = await onto.copy(**given)
    assert report.runs == 1
    assert f"{run_id('a')}/artifacts/model/MLmodel is not at the target what it is at the source" in str(report.left)
    assert onto.target.query("SELECT run_uuid FROM runs") == [{"run_uuid": run_id("b")}]


async def test_a_role_that_only_works_with_the_data_is_enough(databases: Databases, tmp_path: Path) -> None:
    """As `headrace db create --server-role` makes it."""
    ends = Ends(databases.migrated("sqlite"), databases.migrated("postgresql"), tmp_path)
    ends.everything()
    before = ends.rows(ends.source)
    for statement in (
        "DROP ROLE IF EXISTS copier", "CREATE ROLE copier LOGIN",
        "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO copier",
        "GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA public TO copier",
    ):  # fmt: skip
        ends.target.execute(statement)
    whole = ends.target
    ends.target = dataclasses.replace(whole, uri=whole.uri.replace("postgres@", "copier@"))
    with pytest.raises(ConfigurationError, match="the role copier has not got the rights that this needs: permission"):
        await ends.copy()
    whole.execute("GRANT UPDATE ON ALL SEQUENCES IN SCHEMA public TO copier")
    report = await ends.copy()
    assert (report.left, report.runs) == ([], 3)
    assert ends.rows(whole) == before
    insert = "INSERT INTO experiments (name, lifecycle_stage, workspace) VALUES ('new', 'active', 'default')"
    whole.execute(insert)
    assert whole.query("SELECT experiment_id FROM experiments WHERE name = 'new'") == [{"experiment_id": 6}]
    whole.execute("DROP OWNED BY copier")
    whole.execute("DROP ROLE copier")
