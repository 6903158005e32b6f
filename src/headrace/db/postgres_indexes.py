"""Building, listing and dropping Headrace's indexes on PostgreSQL, while everybody goes on working."""

from __future__ import annotations

import asyncio
import logging

import asyncpg

from headrace.db.indexes import INDEXES

logger = logging.getLogger(__name__)

# any number that no other program takes for its own lock
LOCK = 0x6865616472616365

WAIT_SECONDS = 0.5

_VALID = """
SELECT c.relname, i.indisvalid FROM pg_class c JOIN pg_index i ON i.indexrelid = c.oid
WHERE c.relnamespace = current_schema()::regnamespace AND c.relname = ANY($1::name[])
"""


async def build(dsn: str, wait: bool = False) -> None:
    """Build what is missing. One process at a time; whoever comes second leaves it to the first, or waits for it.

    An index that was left half built (its builder was killed) is dropped and built anew. Where the role may not, or
    the database goes away, a line in the log says so.
    """
    try:
        connection = await asyncpg.connect(dsn, server_settings={"application_name": "headrace indexes"})
        try:
            # asked again and again: CREATE INDEX CONCURRENTLY would wait for a statement that waits for its lock
            while not await connection.fetchval("SELECT pg_try_advisory_lock($1)", LOCK):
                if not wait:
                    return
                await asyncio.sleep(WAIT_SECONDS)
            await _build(connection)
        finally:
            await connection.close()
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        logger.warning("Headrace's indexes can't be built: %s. Searches work without them, more slowly.", error)


async def _build(connection: asyncpg.Connection) -> None:
    valid = await _valid(connection)
    for index in INDEXES:
        if valid.get(index.name):
            continue
        if index.name in valid:
            await connection.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {index.name}")
        await connection.execute(index.create("CONCURRENTLY"))
        logger.info("built the index %s", index.name)


async def existing(dsn: str) -> dict[str, bool]:
    """Name -> whether it is ready, of those of INDEXES that are there."""
    connection = await asyncpg.connect(dsn)
    try:
        return await _valid(connection)
    finally:
        await connection.close()


async def drop(dsn: str) -> None:
    """Drop them all; the next start builds them again."""
    connection = await asyncpg.connect(dsn)
    try:
        for index in INDEXES:
            await connection.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {index.name}")
    finally:
        await connection.close()


async def _valid(connection: asyncpg.Connection) -> dict[str, bool]:
    rows = await connection.fetch(_VALID, [index.name for index in INDEXES])
    return {row["relname"]: row["indisvalid"] for row in rows}
