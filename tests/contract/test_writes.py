"""What a store does with writes, on each backend: durable, all or nothing, and no harm to neighbours."""

from __future__ import annotations

import asyncio
import sys
import uuid
from abc import ABCMeta
from types import FrameType
from typing import Any

import pytest

from headrace.db.database import Database as Store
from headrace.db.query import Sql
from headrace.entities import KeyValue, Metric, RunInfo
from headrace.errors import Declined, Unavailable
from headrace.resources.runs.log_plan import MetricRow
from headrace.resources.runs.reads import get_run
from headrace.resources.runs.writes import CreateRun, DeleteTag, LogBatch, UpdateRun
from tests.contract.conftest import open_on
from tests.support.databases import Database


def new_run(experiment_id: int = 0, name: str = "run", tags: tuple[tuple[str, str], ...] = ()) -> CreateRun:
    return CreateRun(uuid.uuid4().hex, experiment_id, name, "user", 1000, (*tags, ("mlflow.runName", name)))


async def create(store: Store) -> str:
    info = await store.submit(new_run())
    assert isinstance(info, RunInfo)
    return info.run_id


def metric(key: str, value: float, step: int = 0, timestamp: int = 0, is_nan: bool = False) -> MetricRow:
    return MetricRow(key, value, timestamp, step, is_nan)


async def test_a_new_run_is_there(store: Store, database: Database) -> None:
    write = new_run(name="first", tags=(("a", "b"),))
    info = await store.submit(write)
    assert info is not None
    assert info.artifact_uri == f"mlflow-artifacts:/0/{write.run_id}/artifacts"
    run = await get_run(store, write.run_id)
    assert run is not None
    assert run.info == info
    assert sorted(run.data.tags, key=lambda tag: tag.key) == [KeyValue("a", "b"), KeyValue("mlflow.runName", "first")]
    assert database.query("SELECT source_type, source_name, source_version, entry_point_name FROM runs") == [
        {"source_type": "UNKNOWN", "source_name": "", "source_version": "", "entry_point_name": ""}
    ]


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("s3://bucket", "s3://bucket/{}/artifacts"),
        ("s3://bucket/a/", "s3://bucket/a/{}/artifacts"),
        ("/data/0", "/data/0/{}/artifacts"),
        ("file:///data/0", "file:///data/0/{}/artifacts"),
        ("mlflow-artifacts://host:1/x", "mlflow-artifacts://host:1/x/{}/artifacts"),
        ("S3://bucket", None),
        ("s3://bucket?a=b", None),
        ("s3:///a", None),
        ("/data#1", None),
        ("relative", None),
        ("/data/a b", None),
        ("mlflow-artifacts:/", None),
    ],
)
async def test_artifact_locations(store: Store, database: Database, location: str, expected: str | None) -> None:
    """Those that stock joins by plain concatenation; the others are left to it (stock's function is the oracle)."""
    from mlflow.utils.uri import append_to_uri_path

    database.execute("UPDATE experiments SET artifact_location = :location", location=location)
    write = new_run()
    if expected is None:
        with pytest.raises(Declined):
            await store.submit(write)
        return
    info = await store.submit(write)
    assert info is not None
    assert info.artifact_uri == expected.format(write.run_id)
    assert info.artifact_uri == append_to_uri_path(location, write.run_id, "artifacts")


@pytest.mark.parametrize("stage", ["deleted", "missing"])
async def test_no_run_in_an_experiment_that_is_not_active(store: Store, database: Database, stage: str) -> None:
    if stage == "deleted":
        database.execute("UPDATE experiments SET lifecycle_stage = 'deleted'")
    with pytest.raises(Declined):
        await store.submit(new_run(0 if stage == "deleted" else 77))
    assert database.query("SELECT * FROM runs") == []
    assert database.query("SELECT * FROM tags") == []


async def test_metrics_and_their_latest_values(store: Store, database: Database) -> None:
    run_id = await create(store)
    await store.submit(LogBatch(run_id, metrics=(metric("m", 1, 1), metric("m", 3, 3), metric("m", 2, 2))))
    await store.submit(LogBatch(run_id, metrics=(metric("m", 9, 2), metric("m", 3, 3), metric("n", 0, is_nan=True))))
    run = await get_run(store, run_id)
    assert run is not None
    assert sorted(run.data.metrics, key=lambda m: m.key) == [Metric("m", 3.0, 0, 3), Metric("n", "NaN", 0, 0)]
    assert len(database.query("SELECT * FROM metrics")) == 5


async def test_what_is_sent_again_is_there_once(store: Store, database: Database) -> None:
    """In a group of its own, with other metrics, and in one transaction with another kind of write."""
    run_id, other = await create(store), await create(store)
    batch = LogBatch(run_id, metrics=(metric("m", 1, 1), metric("m", 2, 2)), params=(("p", "1"),), tags=(("t", "1"),))
    await store.submit(batch)
    await store.submit(batch)
    await asyncio.gather(
        store.submit(batch),
        store.submit(LogBatch(other, metrics=(metric("m", 5, 5), metric("m", 5, 5)))),
        store.submit(UpdateRun(run_id, "FINISHED", 9, None)),
    )
    assert database.query("SELECT run_uuid, step FROM metrics ORDER BY step") == [
        {"run_uuid": run_id, "step": 1},
        {"run_uuid": run_id, "step": 2},
        {"run_uuid": other, "step": 5},
    ]
    assert database.query("SELECT end_time FROM runs WHERE run_uuid = :run", run=run_id) == [{"end_time": 9}]
    assert sorted(row["value"] for row in database.query("SELECT value FROM latest_metrics")) == [2.0, 5.0]


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        (metric("m", 5, step=1, timestamp=9), metric("m", 1, step=2, timestamp=0)),
        (metric("m", 5, step=1, timestamp=1), metric("m", 1, step=1, timestamp=2)),
        (metric("m", 1, step=1, timestamp=1), metric("m", 2, step=1, timestamp=1)),
        (metric("m", -1, step=-5, timestamp=1), metric("m", 0, step=-5, timestamp=1, is_nan=True)),
    ],
)
@pytest.mark.parametrize("together", [True, False])
async def test_the_latest_value_is_the_one_of_stock(
    store: Store, older: MetricRow, newer: MetricRow, together: bool
) -> None:
    for first, second in ((older, newer), (newer, older)):
        run_id = await create(store)
        if together:
            await store.submit(LogBatch(run_id, metrics=(first, second)))
        else:
            await store.submit(LogBatch(run_id, metrics=(first,)))
            await store.submit(LogBatch(run_id, metrics=(second,)))
        run = await get_run(store, run_id)
        assert run is not None
        expected = "NaN" if newer.is_nan else newer.value
        assert run.data.metrics == [Metric("m", expected, newer.timestamp, newer.step)]


async def test_a_param_keeps_its_value(store: Store, database: Database) -> None:
    run_id = await create(store)
    await store.submit(LogBatch(run_id, params=(("a", "1"),)))
    await store.submit(LogBatch(run_id, params=(("a", "1"), ("b", "2"))))
    with pytest.raises(Declined):
        await store.submit(
            LogBatch(run_id, metrics=(metric("m", 1),), params=(("a", "x"), ("c", "3")), tags=(("t", "1"),))
        )
    assert database.query("SELECT key, value FROM params ORDER BY key") == [
        {"key": "a", "value": "1"},
        {"key": "b", "value": "2"},
    ]
    assert database.query("SELECT * FROM metrics") == []
    assert database.query("SELECT key FROM tags") == [{"key": "mlflow.runName"}]


async def test_a_bad_write_does_not_fail_its_neighbours(store: Store, database: Database) -> None:
    """All of one moment, and so of one group: every good one is done, every bad one is declined."""
    runs = [await create(store) for _ in range(4)]
    await store.submit(LogBatch(runs[0], params=(("a", "1"),)))
    database.execute("UPDATE runs SET lifecycle_stage = 'deleted' WHERE run_uuid = :run", run=runs[3])
    outcomes = await asyncio.gather(
        store.submit(LogBatch(runs[0], params=(("a", "2"),))),
        store.submit(LogBatch(runs[1], metrics=(metric("m", 1),), params=(("p", "1"),), tags=(("t", "1"),))),
        store.submit(LogBatch("unknown", metrics=(metric("m", 1),))),
        store.submit(LogBatch(runs[3], metrics=(metric("m", 1),), tags=(("t", "1"),))),
        store.submit(LogBatch(runs[2], tags=(("nul", "\0"),))),
        store.submit(LogBatch(runs[2], params=(("p", "1"),))),
        store.submit(LogBatch(runs[2], params=(("p", "2"),))),
        store.submit(DeleteTag(runs[1], "not there")),
        store.submit(UpdateRun(runs[1], "FINISHED", 5, None)),
        store.submit(UpdateRun("unknown", "FINISHED", 5, None)),
        store.submit(new_run(99)),
        return_exceptions=True,
    )
    declined = [isinstance(outcome, Declined) for outcome in outcomes]
    nul_is_refused = database.backend == "postgresql"  # SQLite can store it
    assert declined == [True, False, True, True, nul_is_refused, False, True, True, False, True, True]
    assert [
        outcome for outcome in outcomes if isinstance(outcome, Exception) and not isinstance(outcome, Declined)
    ] == []
    assert [row["run_uuid"] for row in database.query("SELECT run_uuid FROM metrics")] == [runs[1]]
    assert database.query("SELECT status, end_time FROM runs WHERE run_uuid = :run", run=runs[1]) == [
        {"status": "FINISHED", "end_time": 5}
    ]
    assert [row["value"] for row in database.query("SELECT value FROM params WHERE key = 'p'")] == ["1", "1"]


class Failing(LogBatch, frozen=True, gc=False):
    """A fault of ours."""

    @classmethod
    def apply_sqlite(cls, connection: Any, writes: Any) -> Any:
        raise KeyError("inputs")

    @classmethod
    async def apply_postgres(cls, session: Any, writes: Any) -> Any:
        raise KeyError("inputs")


async def test_nor_does_one_that_fails(store: Store, database: Database) -> None:
    run = await create(store)
    outcomes = await asyncio.gather(
        store.submit(LogBatch(run, params=(("a", "1"),))),
        store.submit(Failing(run)),
        store.submit(LogBatch(run, params=(("b", "1"),))),
        return_exceptions=True,
    )
    assert [type(outcome) for outcome in outcomes] == [type(None), KeyError, type(None)]
    assert len(database.query("SELECT key FROM params")) == 2


async def test_a_run_name_is_a_tag_and_a_column(store: Store, database: Database) -> None:
    run_id = await create(store)

    async def names() -> tuple[str | None, list[str]]:
        run = await get_run(store, run_id)
        assert run is not None
        return run.info.run_name, [tag.value for tag in run.data.tags if tag.key == "mlflow.runName"]

    await store.submit(LogBatch(run_id, tags=(("mlflow.runName", "x"), ("mlflow.runName", "y"))))
    assert await names() == ("y", ["y"])
    await store.submit(LogBatch(run_id, tags=(("mlflow.runName", ""),)))
    assert await names() == ("y", ["y"])
    info = await store.submit(UpdateRun(run_id, None, None, "z"))
    assert info is not None
    assert (info.run_name, info.status) == ("z", "RUNNING")
    assert await names() == ("z", ["z"])


async def test_tags_are_set_and_deleted(store: Store) -> None:
    run_id = await create(store)
    await store.submit(LogBatch(run_id, tags=(("a", "1"), ("b", "2"), ("a", "3"))))
    await store.submit(DeleteTag(run_id, "b"))
    run = await get_run(store, run_id)
    assert run is not None
    assert KeyValue("a", "3") in run.data.tags
    assert len(run.data.tags) == 2
    with pytest.raises(Declined):
        await store.submit(DeleteTag(run_id, "b"))


async def test_many_writers_to_one_run(store: Store, database: Database) -> None:
    run_id = await create(store)
    steps = list(range(300))
    await asyncio.gather(*(store.submit(LogBatch(run_id, metrics=(metric("m", float(s), s),))) for s in steps))
    assert sorted(row["step"] for row in database.query("SELECT step FROM metrics")) == steps
    assert database.query("SELECT step, value FROM latest_metrics") == [{"step": 299, "value": 299.0}]


async def test_a_caller_that_goes_away_does_no_harm(store: Store, database: Database) -> None:
    run_id = await create(store)
    tasks = [asyncio.create_task(store.submit(LogBatch(run_id, metrics=(metric("m", 1, s),)))) for s in range(20)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [outcome for outcome in outcomes[1::2] if outcome is not None] == []
    await store.submit(LogBatch(run_id, metrics=(metric("m", 1, 99),)))
    steps = {row["step"] for row in database.query("SELECT step FROM metrics")}
    assert steps >= {*range(1, 20, 2), 99}


async def test_a_full_queue_says_so(database: Database) -> None:
    store = await open_on(database, queue_limit=3)
    run_id = await create(store)
    writes = [store.submit(LogBatch(run_id, metrics=(metric("m", 1, s),))) for s in range(10)]
    outcomes = await asyncio.gather(*writes, return_exceptions=True)
    refused = [outcome for outcome in outcomes if isinstance(outcome, Unavailable)]
    assert len(refused) == 7
    assert len(database.query("SELECT * FROM metrics")) == 3
    await store.close()


async def test_a_stop_drains_the_queue(database: Database) -> None:
    store = await open_on(database)
    run_id = await create(store)
    tasks = [asyncio.create_task(store.submit(LogBatch(run_id, metrics=(metric("m", 1, s),)))) for s in range(50)]
    await asyncio.sleep(0)
    await store.close()
    assert await asyncio.gather(*tasks) == [None] * 50
    assert len(database.query("SELECT * FROM metrics")) == 50
    with pytest.raises(Unavailable):
        await store.submit(LogBatch(run_id, metrics=(metric("m", 1, 51),)))


async def test_durability_settings(store: Store, database: Database) -> None:
    """A write is acknowledged when it is on the disk: the journal of SQLite, synchronous_commit of PostgreSQL."""
    if database.backend == "sqlite":
        assert database.query("PRAGMA journal_mode") == [{"journal_mode": "wal"}]
    else:
        assert database.query("SHOW synchronous_commit") == [{"synchronous_commit": "on"}]


@pytest.mark.parametrize(
    ("postgresql", "sqlite", "tables"),
    [
        ("ALTER TABLE tags ADD COLUMN more text", "ALTER TABLE tags ADD COLUMN more TEXT", {"tags"}),
        ("ALTER TABLE runs RENAME COLUMN name TO title", "ALTER TABLE runs RENAME COLUMN name TO title", {"runs"}),
        ("ALTER TABLE metrics ALTER COLUMN step TYPE integer", None, {"metrics"}),
        ("ALTER TABLE params DROP CONSTRAINT param_pk", None, {"params"}),
        ("DROP TABLE input_tags", "DROP TABLE input_tags", {"input_tags"}),
    ],
)
async def test_changed_tables_are_seen(
    database: Database, postgresql: str, sqlite: str | None, tables: set[str]
) -> None:
    change = postgresql if database.backend == "postgresql" else sqlite
    if change is None:
        change, tables = "SELECT 1", set()  # SQLite can't do it
    database.execute(change)
    store = await open_on(database)
    assert store.changed_tables.keys() == tables
    await store.close()


async def test_a_run_of_another_client(store: Store, database: Database) -> None:
    """Inputs, their tags, and models as stock leaves them in the database."""
    run_id = await create(store)
    database.execute(
        "INSERT INTO datasets (dataset_uuid, experiment_id, name, digest, dataset_source_type, dataset_source)"
        " VALUES ('d', 0, 'data', 'abc', 'local', '{}')"
    )
    for source, target in ((("DATASET", "d"), ("RUN", run_id)), (("RUN_INPUT", run_id), ("MODEL_INPUT", "m-1"))):
        database.execute(
            "INSERT INTO inputs (input_uuid, source_type, source_id, destination_type, destination_id)"
            " VALUES (:id, :st, :si, :dt, :di)",
            id=f"i-{source[0]}",
            st=source[0],
            si=source[1],
            dt=target[0],
            di=target[1],
        )
    database.execute(
        "INSERT INTO inputs (input_uuid, source_type, source_id, destination_type, destination_id, step)"
        " VALUES ('i-out', 'RUN_OUTPUT', :run, 'MODEL_OUTPUT', 'm-2', 7)",
        run=run_id,
    )
    database.execute("INSERT INTO input_tags (input_uuid, name, value) VALUES ('i-DATASET', 'context', 'training')")
    run = await get_run(store, run_id)
    assert run is not None
    assert [(d.dataset.name, d.dataset.digest, d.tags) for d in run.inputs.dataset_inputs] == [
        ("data", "abc", [KeyValue("context", "training")])
    ]
    assert [model.model_id for model in run.inputs.model_inputs] == ["m-1"]
    assert run.outputs is not None
    assert [(model.model_id, model.step) for model in run.outputs.model_outputs] == [("m-2", 7)]


async def test_an_unknown_run(store: Store) -> None:
    assert await get_run(store, "unknown") is None


async def test_a_list_and_its_elements_are_not_asked_whether_they_are_lists(store: Store) -> None:
    """asyncpg's way to ask costs more than all else that it does for a list."""
    asked = 0

    def count(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal asked
        asked += event == "call" and frame.f_code is ABCMeta.__instancecheck__.__code__

    statement = Sql("SELECT run_uuid FROM runs WHERE run_uuid IN :run_ids")(run_ids=[uuid.uuid4().hex] * 1_000)
    await store.rows(statement)  # else the first one's connection and types count
    sys.setprofile(count)
    try:
        await store.rows(statement)
    finally:
        sys.setprofile(None)
    assert asked == 0
