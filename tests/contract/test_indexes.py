"""Headrace's indexes: built after a start, in the background; listed and dropped."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest
from click.testing import CliRunner
from msgspec.structs import replace

from headrace.api.search.ast import RunSearch
from headrace.cli.indexes import indexes
from headrace.db import connections, postgres_indexes
from headrace.db.indexes import HISTORIES, INDEXES, Index
from headrace.db.postgres import PostgresDatabase
from headrace.db.sqlite import SqliteDatabase
from headrace.resources.runs import reads
from headrace.resources.runs.search import parse_filter, parse_order
from tests.support.databases import Database, Databases
from tests.support.processes import wait_until

NAMES = {index.name for index in INDEXES}
READY = dict.fromkeys((*NAMES, HISTORIES.name), True)
# what it is before them, and after they were dropped
MLFLOWS = {HISTORIES.name: False}


async def until_built(database: Database) -> None:
    table = "pg_indexes" if database.backend == "postgresql" else "sqlite_master"
    column = "indexname" if database.backend == "postgresql" else "name"
    for _ in range(3000):
        rows = database.query(f"SELECT {column} AS name FROM {table} WHERE {column} LIKE 'headrace%'")
        if {row["name"] for row in rows} == NAMES:
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"built within a minute: {rows}")


async def test_postgresql(databases: Databases) -> None:
    database = databases.migrated("postgresql")
    url = database.url
    stores = [PostgresDatabase(url, queue_limit=10) for _ in range(3)]
    try:
        await asyncio.gather(*(store.start() for store in stores))
        await until_built(database)
    finally:
        await asyncio.gather(*(store.close() for store in stores))
    await postgres_indexes.build(url)
    assert await postgres_indexes.existing(url) == READY
    await postgres_indexes.drop(url)
    assert await postgres_indexes.existing(url) == MLFLOWS


async def test_a_second_builder_leaves_it_to_the_first_or_waits_for_it(databases: Databases) -> None:
    database = databases.migrated("postgresql")
    url, dsn = database.url, database.uri.replace("+psycopg2", "")
    first = await asyncpg.connect(dsn)
    await first.execute("SELECT pg_advisory_lock($1)", postgres_indexes.LOCK)
    await postgres_indexes.build(url)
    assert await postgres_indexes.existing(url) == MLFLOWS
    waiting = asyncio.create_task(postgres_indexes.build(url, wait=True))
    done, _ = await asyncio.wait([waiting], timeout=2 * postgres_indexes.WAIT_SECONDS)
    assert not done
    await first.close()
    await waiting
    assert await postgres_indexes.existing(url) == READY


async def test_a_half_built_index_is_built_anew(databases: Databases) -> None:
    database = databases.migrated("postgresql")
    url = database.url
    database.execute(INDEXES[0].create())
    database.execute(f"UPDATE pg_index SET indisvalid = false WHERE indexrelid = '{INDEXES[0].name}'::regclass")
    await postgres_indexes.build(url)
    assert await postgres_indexes.existing(url) == READY


def definition(database: Database) -> str:
    """Of the indexes of steps: their tables and columns."""
    rows = database.query("SELECT indexdef FROM pg_indexes WHERE indexdef LIKE '% (run_uuid, key, step)%'")
    return "; ".join(row["indexdef"].partition(" ON public.")[2] for row in rows)


PLAIN = "metrics USING btree (run_uuid, key, step)"
WIDE = f'{PLAIN} INCLUDE ("timestamp", value, is_nan)'
UNDONE = [
    pytest.param("", id="MLflow's"),
    pytest.param(
        "CREATE INDEX headrace_metrics_history ON metrics (run_uuid, key, step) INCLUDE (timestamp, value, is_nan);"
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'headrace_metrics_history'::regclass",
        id="half built",
    ),
    pytest.param("CREATE INDEX headrace_metrics_history ON metrics (run_uuid, key, step)", id="of other columns"),
    pytest.param(
        "CREATE INDEX headrace_metrics_history ON metrics (run_uuid, key, step) INCLUDE (timestamp, value, is_nan);"
        "DROP INDEX index_metrics_run_uuid_key_step",
        id="before it has its name",
    ),
    pytest.param(
        "ALTER INDEX index_metrics_run_uuid_key_step RENAME TO headrace_metrics_before;"
        "CREATE INDEX index_metrics_run_uuid_key_step ON metrics (run_uuid, key, step)"
        " INCLUDE (timestamp, value, is_nan)",
        id="when it has its name",
    ),
]


@pytest.mark.parametrize("broken_off", UNDONE)
async def test_the_index_of_histories_takes_the_place_of_mlflows(databases: Databases, broken_off: str) -> None:
    """Whatever one that was broken off has left; and MLflow's takes its place again."""
    database = databases.migrated("postgresql")
    assert definition(database) == PLAIN
    for statement in filter(None, broken_off.split(";")):
        database.execute(statement)
    await postgres_indexes.build_or_fail(database.url)
    assert definition(database) == WIDE
    await postgres_indexes.drop(database.url)
    assert definition(database) == PLAIN


async def test_two_that_put_it_there_at_a_time_leave_it_there(
    databases: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As behind a pooler, where no lock tells of the other. It has done all of it when the first has made its own."""
    database = databases.migrated("postgresql")
    first, second = [await connections.connect(database.url) for _ in range(2)]
    make = postgres_indexes._make

    async def make_and_let_the_other(connection: connections.Connection, index: Index) -> None:
        await make(connection, index)
        if connection is first:
            await postgres_indexes.exchange(second, HISTORIES)

    monkeypatch.setattr(postgres_indexes, "_make", make_and_let_the_other)
    try:
        await postgres_indexes.exchange(first, HISTORIES)
        assert definition(database) == WIDE
    finally:
        await connections.close(first)
        await connections.close(second)


async def test_that_of_a_large_table_is_made_when_it_is_asked_for(
    databases: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = databases.migrated("postgresql")
    monkeypatch.setattr(postgres_indexes, "SMALL_TABLE_BYTES", 1)
    await postgres_indexes.build(database.url)
    assert await postgres_indexes.existing(database.url) == READY | MLFLOWS
    assert definition(database) == PLAIN
    await postgres_indexes.build_or_fail(database.url)
    assert definition(database) == WIDE


async def test_one_that_somebody_has_dropped_is_not_made_again(databases: Databases) -> None:
    database = databases.migrated("postgresql")
    database.execute(f"DROP INDEX {HISTORIES.name}")
    await postgres_indexes.build_or_fail(database.url)
    assert definition(database) == ""


async def test_the_builder_survives_a_deadlock(databases: Databases, caplog: pytest.LogCaptureFixture) -> None:
    """It waits for a transaction that has read the table, and that transaction then for it."""
    caplog.set_level("INFO")
    database = databases.migrated("postgresql")
    reader = await asyncpg.connect(database.uri.replace("+psycopg2", ""))
    await reader.execute("SET deadlock_timeout = '1h'")  # so that it is the builder that is ended
    waits = "SELECT count(*) FROM pg_locks WHERE locktype = 'virtualxid' AND NOT granted"
    async with reader.transaction():
        await reader.execute("LOCK TABLE runs IN ROW EXCLUSIVE MODE")
        building = asyncio.create_task(postgres_indexes.build_or_fail(database.url))
        await asyncio.to_thread(wait_until, lambda: database.query(waits)[0]["count"] > 0, "the builder waits")
        await reader.execute("LOCK TABLE runs IN SHARE UPDATE EXCLUSIVE MODE")
    await building
    await reader.close()
    assert "waited for each other" in caplog.text
    assert await postgres_indexes.existing(database.url) == READY


async def test_sqlite(databases: Databases) -> None:
    database = databases.migrated("sqlite")
    store = SqliteDatabase(database.name, queue_limit=10)
    await store.start()
    try:
        await until_built(database)
    finally:
        await store.close()


async def test_a_search_on_sqlite_looks_up_the_runs_that_meet_a_rare_condition(databases: Databases) -> None:
    database = databases.migrated("sqlite")
    numbers = "WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 99)"
    database.execute(
        f"{numbers} INSERT INTO runs (run_uuid, experiment_id, lifecycle_stage, start_time)"
        " SELECT 'run' || i, 0, 'active', i FROM n"
    )
    for key, value in (("rare", "i % 20 = 0"), ("common", "i % 2 = 0")):
        database.execute(
            f"{numbers} INSERT INTO latest_metrics (key, value, is_nan, run_uuid, timestamp, step)"
            f" SELECT '{key}', {value}, 0, 'run' || i, 0, 0 FROM n"
        )
    store = SqliteDatabase(database.name, queue_limit=10)
    await store.start()
    try:
        search = RunSearch(
            (0,), ("active",), parse_filter("metrics.common = 1 AND metrics.rare > 0"), parse_order([]), 1
        )
        assert await reads.most_selective_condition(store, search) == search.conditions[1]
        assert [row["run_uuid"] for row in await reads.find_runs(store, search, None)] == ["run80", "run60"]
        assert await reads.most_selective_condition(store, replace(search, conditions=search.conditions[:1])) is None
        assert await reads.most_selective_condition(store, replace(search, conditions=())) is None
    finally:
        await store.close()


def test_the_commands(databases: Databases) -> None:
    database = databases.migrated("postgresql")
    runner = CliRunner()

    def output(action: str) -> str:
        done = runner.invoke(indexes, [action, database.uri], catch_exceptions=False)
        assert done.exit_code == 0
        return done.output

    before = output("list")
    assert before.count("missing") == len(INDEXES)
    assert "as MLflow makes it: `headrace db indexes build`" in before
    output("build")
    assert output("list").count(": ready") == len(INDEXES) + 1
    output("drop")
    assert output("list") == before
