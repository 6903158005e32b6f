"""Building, listing and dropping Headrace's indexes on PostgreSQL, while everybody goes on working."""

from __future__ import annotations

import asyncio
import logging

import asyncpg

from headrace.database_url import PostgresURL
from headrace.db import connections
from headrace.db.connections import Connection
from headrace.db.indexes import INDEXES

logger = logging.getLogger(__name__)

# any number that no other program takes for its own lock
LOCK = 0x6865616472647831

WAIT_SECONDS = 0.5
# PostgreSQL ends one of two that wait for each other: CREATE INDEX waits for whoever has read the table before.
DEADLOCKS = 10

_VALID = """
SELECT c.relname, i.indisvalid FROM pg_class c JOIN pg_index i ON i.indexrelid = c.oid
WHERE pg_table_is_visible(i.indrelid) AND c.relname = ANY($1::name[]) AND i.indrelid = ANY ($2::text[]::regclass[])
"""

_IS_BUILT = """
SELECT count(*) > 0 FROM pg_stat_progress_create_index
WHERE datname = current_database() AND relid = ANY ($1::text[]::regclass[]::oid[])
"""


async def build(database: PostgresURL, wait: bool = False) -> None:
    """Build what is missing. One process at a time; whoever comes second leaves it to the first, or waits for it.

    An index that was left half built (its builder was killed) is dropped and built anew. Where the role may not, or
    the database goes away, a line in the log says so.
    """
    try:
        await build_or_fail(database, wait)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        logger.warning("Headrace's indexes can't be built: %s. Searches work without them, more slowly.", error)


async def build_or_fail(database: PostgresURL, wait: bool = True) -> None:
    """As `build`. Raises OSError, asyncpg's errors."""
    connection = await connections.connect(database)
    try:
        said = False
        # asked again and again: CREATE INDEX CONCURRENTLY would wait for a statement that waits for its lock
        while not await _is_alone(connection):
            if not said:
                logger.info("another process builds Headrace's indexes%s", ": waiting for it" if wait else "")
                said = True
            if not wait:
                return
            await asyncio.sleep(WAIT_SECONDS)
        await _build(connection)
    finally:
        await connections.close(connection)


async def _is_alone(connection: Connection) -> bool:
    """Whether nobody else builds. A lock of a session would stay behind on a pooler's connection: there we look."""
    if connection.pooled:
        return not await connection.fetchval(_IS_BUILT, [index.table for index in INDEXES])
    return bool(await connection.fetchval("SELECT pg_try_advisory_lock($1)", LOCK))


async def _build(connection: Connection) -> None:
    valid = await _valid(connection)
    for index in INDEXES:
        for attempt in range(DEADLOCKS):
            if valid.get(index.name):
                break
            try:
                if index.name in valid:
                    await connection.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {index.name}")
                await connection.execute(index.create("CONCURRENTLY"))
                logger.info("built the index %s", index.name)
                break
            except (asyncpg.DeadlockDetectedError, asyncpg.UniqueViolationError, asyncpg.LockNotAvailableError):
                if attempt + 1 == DEADLOCKS:
                    raise
                logger.info("the index %s and another statement waited for each other: once more", index.name)
                await asyncio.sleep(WAIT_SECONDS)
                valid = await _valid(connection)


async def existing(database: PostgresURL) -> dict[str, bool]:
    """Name -> whether it is ready, of those of INDEXES that are there."""
    connection = await connections.connect(database)
    try:
        return await _valid(connection)
    finally:
        await connections.close(connection)


async def drop(database: PostgresURL) -> None:
    """Drop them all; the next start builds them again."""
    connection = await connections.connect(database)
    try:
        for index in INDEXES:
            await connection.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {index.name}")
    finally:
        await connections.close(connection)


async def _valid(connection: Connection) -> dict[str, bool]:
    rows = await connection.fetch(_VALID, [index.name for index in INDEXES], [index.table for index in INDEXES])
    return {row["relname"]: row["indisvalid"] for row in rows}
