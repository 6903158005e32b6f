"""PostgreSQL's statistics of tables that it has none of: made at a start, while rows come and after a copy."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

from headrace.copy.postgres import PostgresStore
from headrace.database_url import PostgresURL, parse
from headrace.db import postgres_indexes, postgres_statistics
from headrace.db.postgres import PostgresDatabase
from headrace.db.query import Query
from tests.support.databases import Database, Databases
from tests.support.processes import eventually

RUNS = """
INSERT INTO runs (run_uuid, name, experiment_id, user_id, status, lifecycle_stage, start_time)
SELECT md5(n::text), 'run ' || n, 0, 'u', 'FINISHED', 'active', n FROM generate_series(1, 2000) n
"""
TAGS = """
INSERT INTO tags (run_uuid, key, value)
SELECT run_uuid, key, name FROM runs, unnest(ARRAY['mlflow.runName', 'mlflow.user', 'team']) key
"""
SEARCH = """
EXPLAIN (ANALYZE, FORMAT JSON)
SELECT r.run_uuid FROM runs r WHERE r.experiment_id = 0 AND r.lifecycle_stage = 'active' AND EXISTS (
  SELECT 1 FROM tags f WHERE f.run_uuid = r.run_uuid AND f.key = 'mlflow.runName' AND f.value ILIKE '%none%'
) ORDER BY r.start_time DESC, r.run_uuid LIMIT 101
"""


@pytest.fixture
async def database(databases: Databases) -> Database:
    """2,000 runs have come to a server a moment ago."""
    database = databases.migrated("postgresql")
    await postgres_indexes.build(database.url)
    for table in ("runs", "tags"):
        database.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = off)")
    database.execute(RUNS)
    database.execute(TAGS)
    assert tables_with_statistics(database).isdisjoint({"runs", "tags"})
    return database


def tables_with_statistics(database: Database) -> set[str]:
    rows = database.query("SELECT DISTINCT tablename FROM pg_stats WHERE schemaname = 'public'")
    return {row["tablename"] for row in rows}


def pages_analyzed(database: Database) -> int:
    [row] = database.query("SELECT relpages FROM pg_class WHERE oid = 'runs'::regclass")
    return int(row["relpages"])


@asynccontextmanager
async def server(database: Database) -> AsyncIterator[PostgresDatabase]:
    """Its connections to the database, after its start."""
    store = PostgresDatabase(database.url, queue_limit=100, builds_indexes=False)
    await store.start()
    try:
        yield store
    finally:
        await store.close()


async def write(store: PostgresDatabase) -> None:
    await store.change(Query("UPDATE experiments SET name = name RETURNING 1", []))


def rows_of_tags_looked_at(database: Database) -> int:
    [row] = database.query(SEARCH)
    return looked_at(row["QUERY PLAN"][0]["Plan"])


def looked_at(node: dict[str, Any]) -> int:
    own = node["Actual Loops"] * (node["Actual Rows"] + node.get("Rows Removed by Filter", 0))
    return (own if node.get("Alias") == "f" else 0) + sum(map(looked_at, node.get("Plans", [])))


async def test_a_start_makes_them(database: Database) -> None:
    assert rows_of_tags_looked_at(database) > 1_000_000, "else there would be nothing to make"
    await postgres_indexes.build(database.url)
    assert {"runs", "tags"} <= tables_with_statistics(database)
    assert "params" not in tables_with_statistics(database), "which is empty"
    assert rows_of_tags_looked_at(database) <= 6_000, "each once"


async def test_so_does_a_server_while_rows_come(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_statistics, "SECONDS_AFTER_WRITES", 0.1)
    async with server(database) as store:
        await write(store)
        await eventually(lambda: {"runs", "tags"} <= tables_with_statistics(database))
        assert rows_of_tags_looked_at(database) <= 6_000, "each once"
        for each in range(postgres_statistics.GROWTH):
            database.execute(RUNS.replace("md5(n::text)", f"md5('{each} ' || n)"))
        before = pages_analyzed(database)
        await write(store)
        await eventually(lambda: pages_analyzed(database) > postgres_statistics.GROWTH * before)


async def test_a_connection_that_has_just_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for one whose last word is here, and whose end is not, which lasts for microseconds."""
    monkeypatch.setattr(postgres_statistics, "SECONDS_AFTER_WRITES", 0)
    asked = 0

    class Ended:
        async def fetch(self, *_: object) -> None:
            nonlocal asked
            asked += 1
            upkeep.written()
            raise asyncpg.InternalClientError("cannot switch to state 12; another operation (2) is in progress")

    @asynccontextmanager
    async def use() -> AsyncIterator[Any]:
        yield Ended()

    upkeep = postgres_statistics.Upkeep(use)
    upkeep.written()
    await eventually(lambda: asked > 2)
    upkeep.close()


async def test_so_does_a_copy(database: Database) -> None:
    store = PostgresStore(database.url)
    await store.finish()
    await store.close()
    assert {"runs", "tags"} <= tables_with_statistics(database)


async def test_a_role_that_may_not_is_passed_over(database: Database) -> None:
    database.execute("CREATE ROLE statistics_reader LOGIN")
    database.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO statistics_reader")
    try:
        url = parse(database.uri.replace("postgres@", "statistics_reader@"))
        assert isinstance(url, PostgresURL)
        await postgres_indexes.build(url)
    finally:
        database.execute("DROP OWNED BY statistics_reader")
        database.execute("DROP ROLE statistics_reader")
    assert tables_with_statistics(database).isdisjoint({"runs", "tags"})
