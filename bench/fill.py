"""The data set into a database: MLflow's tables, or FastTrackML's. Bulk loads, with the indexes built afterwards."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import asynccontextmanager, closing
from typing import Any

import asyncpg

from bench.databases import Database, run
from bench.dataset import Dataset, Table

# The constraints and indexes that nothing else depends on: those of a table's foreign keys stay.
_DEPENDENT = """
SELECT format('ALTER TABLE %I DROP CONSTRAINT %I', t.relname, c.conname) AS drop,
  format('ALTER TABLE %I ADD CONSTRAINT %I %s', t.relname, c.conname, pg_get_constraintdef(c.oid)) AS make
FROM pg_constraint c JOIN pg_class t ON t.oid = c.conrelid
WHERE t.relname = ANY($1) AND t.relnamespace = current_schema()::regnamespace AND c.contype = 'p'
UNION ALL
SELECT format('DROP INDEX %I', i.indexname), i.indexdef FROM pg_indexes i
WHERE i.tablename = ANY($1) AND i.schemaname = current_schema()
  AND i.indexname NOT IN (SELECT conname FROM pg_constraint)
"""
_BULKY = ["latest_metrics", "metrics", "params", "tags"]
# Its Default gives way to the data's; what its tables have besides MLflow's columns gets a default, as the COPY names
# MLflow's alone.
_FASTTRACKML = """
DELETE FROM experiments;
ALTER TABLE experiments ALTER namespace_id SET DEFAULT 1;
ALTER TABLE latest_metrics ALTER context_id SET DEFAULT 1, ALTER last_iter SET DEFAULT 1;
ALTER TABLE metrics ALTER context_id SET DEFAULT 1, ALTER iter SET DEFAULT 1;
"""


def fill(database: Database, dataset: Dataset, family: str) -> None:
    """Write the data set into tables that are there; `family`: whose they are."""
    if database.kind == "sqlite":
        _fill_sqlite(database, dataset)
    else:
        run(_fill_postgres(database.uri, dataset, family))


async def _fill_postgres(uri: str, dataset: Dataset, family: str) -> None:
    connection = await asyncpg.connect(uri, command_timeout=600)
    try:
        await connection.execute("SET synchronous_commit = off; SET session_replication_role = replica")
        if family == "fasttrackml":
            await connection.execute(_FASTTRACKML)
        async with without_indexes(connection):
            for table, columns, rows in map(_renamed if family == "fasttrackml" else _as_it_is, dataset.tables()):
                await connection.copy_records_to_table(table, columns=columns, records=rows)
        last = max(dataset.experiments)
        await connection.execute(f"SELECT setval(pg_get_serial_sequence('experiments', 'experiment_id'), {last})")
        await settle(connection)
    finally:
        await connection.close()


async def settle(connection: asyncpg.Connection) -> None:
    """Do what autovacuum has done by the time that somebody searches.

    Commits go to the disk first, and those of VACUUM itself at once: while one of that time may still be lost, no page
    is marked as visible to all, and an index alone would not do.
    """
    await connection.execute("SET synchronous_commit = on")
    await connection.execute("CHECKPOINT")
    await connection.execute("VACUUM ANALYZE")


def _as_it_is(table: Table) -> Table:
    return table


def _renamed(table: Table) -> Table:
    """FastTrackML keeps params in a column for each type."""
    name, columns, rows = table
    return (name, ("key", "value_str", "run_uuid"), rows) if name == "params" else (name, columns, rows)


@asynccontextmanager
async def without_indexes(connection: asyncpg.Connection) -> Any:
    """Drop the primary keys and indexes of the bulky tables, and make them anew at the end: cheaper than row by row."""
    made = await connection.fetch(_DEPENDENT, _BULKY)
    for row in made:
        await connection.execute(row["drop"])
    yield
    await connection.execute("SET maintenance_work_mem = '512MB'")
    for row in made:
        await connection.execute(row["make"])


def _fill_sqlite(database: Database, dataset: Dataset) -> None:
    with closing(sqlite3.connect(database.uri.removeprefix("sqlite:///"))) as db:
        db.execute("PRAGMA synchronous = OFF")
        db.execute("PRAGMA cache_size = -1000000")
        indexes = list(_indexes(db))
        for name, _ in indexes:
            db.execute(f"DROP INDEX {name}")
        for table, columns, rows in dataset.tables():
            places = ", ".join("?" * len(columns))
            db.executemany(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({places})", rows)
        for _, text in indexes:
            db.execute(text)
        db.commit()


def _indexes(db: sqlite3.Connection) -> Iterator[tuple[str, str]]:
    listed = ", ".join("?" * len(_BULKY))
    yield from db.execute(
        f"SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL AND tbl_name IN ({listed})",
        _BULKY,
    )
