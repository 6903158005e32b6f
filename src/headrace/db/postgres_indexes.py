"""Building, listing and dropping Headrace's indexes on PostgreSQL, while everybody goes on working.

Who builds them has PostgreSQL make statistics, too, where it has none.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import asyncpg
from msgspec.structs import replace

from headrace.database_url import PostgresURL
from headrace.db import connections, postgres_statistics
from headrace.db.connection_errors import FAILURES
from headrace.db.connections import Connection
from headrace.db.indexes import HISTORIES, INDEXES, MLFLOWS_STEPS, ON_POSTGRESQL, Index, which_are_ready
from headrace.db.query import Dialect

logger = logging.getLogger(__name__)

# any number that no other program takes for its own lock
LOCK = 0x6865616472647831

WAIT_SECONDS = 0.5
# PostgreSQL ends one of two that wait for each other: CREATE INDEX waits for whoever has read the table before.
DEADLOCKS = 10

# Above it, HISTORIES is left to `headrace db indexes build`: it would take longer than 10 s, and its size of the disk.
SMALL_TABLE_BYTES = 1_000_000_000
# HISTORIES, or MLflow's index again, until it takes the place of the other; that one from then on
_INSTEAD, _BEFORE = "headrace_metrics_history", "headrace_metrics_before"

_IS_BUILT = """
SELECT count(*) > 0 FROM pg_stat_progress_create_index
WHERE datname = current_database() AND relid = ANY ($1::text[]::regclass[]::oid[])
"""


async def build(database: PostgresURL, wait: bool = False) -> None:
    """Build what is missing. One process at a time; whoever comes second leaves it to the first.

    An index that was left half built (its builder was killed) is dropped and built anew. Where the role may not, or
    the database goes away, a line in the log says so. `wait`: for the first, and for what takes minutes.
    """
    try:
        await build_or_fail(database, wait)
    except FAILURES as error:
        logger.warning("Headrace's indexes can't be built: %s. Searches work without them, more slowly.", error)


async def build_or_fail(database: PostgresURL, wait: bool = True) -> None:
    """As `build`. Raises OSError, asyncpg's errors."""
    async with _alone(database, wait) as connection:
        if connection is None:
            return
        await postgres_statistics.complete(connection)
        for index in INDEXES:
            await _make(connection, index)
        size = "SELECT pg_total_relation_size($1::text::regclass)"
        if wait or await connection.fetchval(size, HISTORIES.table) <= SMALL_TABLE_BYTES:
            await exchange(connection, HISTORIES)


@asynccontextmanager
async def _alone(database: PostgresURL, wait: bool) -> AsyncIterator[Connection | None]:
    """A connection, once nobody else builds; None where that is not waited for."""
    connection = await connections.connect(database)
    try:
        said = False
        # asked again and again: CREATE INDEX CONCURRENTLY would wait for a statement that waits for its lock
        while not await _is_alone(connection):
            if not said:
                logger.info("another process builds Headrace's indexes%s", ": waiting for it" if wait else "")
                said = True
            if not wait:
                yield None
                return
            await asyncio.sleep(WAIT_SECONDS)
        yield connection
    finally:
        await connections.close(connection)


async def _is_alone(connection: Connection) -> bool:
    """Whether nobody else builds. A lock of a session would stay behind on a pooler's connection: there we look."""
    if connection.pooled:
        return not await connection.fetchval(_IS_BUILT, [index.table for index in ON_POSTGRESQL])
    return bool(await connection.fetchval("SELECT pg_try_advisory_lock($1)", LOCK))


async def _make(connection: Connection, index: Index) -> None:
    """Have an index, which is not there, half built, of other columns, or there."""

    async def make() -> None:
        ready = (await _ready(connection, [index])).get(index.name)
        if ready:
            return
        if ready is not None:
            await connection.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {index.name}")
        await connection.execute(index.create("CONCURRENTLY"))
        logger.info("built the index %s", index.name)

    await _beside_others(make, index.name)


async def exchange(connection: Connection, index: Index) -> None:
    """Put an index in the place of the one of its name, which is there until then. Begun again, it goes on.

    Two may be at it at a time, behind a pooler: both names change at once, or neither does, and what goes is never the
    index that has taken the place.
    """
    instead, before = replace(index, name=_INSTEAD), replace(index, name=_BEFORE)

    async def take_its_place() -> None:
        if not (await _ready(connection, [index])).get(index.name):  # else another has done it
            await connection.execute(
                f"ALTER INDEX IF EXISTS {index.name} RENAME TO {_BEFORE}; ALTER INDEX {_INSTEAD} RENAME TO {index.name}"
            )
        await connection.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {_BEFORE}")

    there = await _ready(connection, [index, instead, before])
    if _BEFORE in there:  # of one that was broken off, as is _INSTEAD here
        await connection.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {_BEFORE}")
    if there.get(index.name):
        await connection.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {_INSTEAD}")
    elif index.name in there or _INSTEAD in there:  # else somebody has dropped it, and wants none
        await _make(connection, instead)
        await _beside_others(take_its_place, index.name)
        logger.info("the index %s is ON %s now", index.name, index)


async def _beside_others(work: Callable[[], Awaitable[None]], name: str) -> None:
    """Do it, again where PostgreSQL has ended it for another statement."""
    for attempt in range(DEADLOCKS):
        try:
            await work()
            break
        except (asyncpg.DeadlockDetectedError, asyncpg.UniqueViolationError, asyncpg.LockNotAvailableError):
            if attempt + 1 == DEADLOCKS:
                raise
            logger.info("the index %s and another statement waited for each other: once more", name)
            await asyncio.sleep(WAIT_SECONDS)


async def existing(database: PostgresURL) -> dict[str, bool]:
    """Name -> whether it is ready, of those that are there."""
    connection = await connections.connect(database)
    try:
        return await _ready(connection, ON_POSTGRESQL)
    finally:
        await connections.close(connection)


async def drop(database: PostgresURL) -> None:
    """Drop them all, and make MLflow's own as it was; the next start builds them again."""
    async with _alone(database, wait=True) as connection:
        assert connection is not None
        for index in INDEXES:
            await connection.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {index.name}")
        await exchange(connection, MLFLOWS_STEPS)


async def _ready(connection: Connection, indexes: Sequence[Index]) -> dict[str, bool]:
    """Name -> whether it is ready, of those that are there."""
    query = which_are_ready(indexes).render(Dialect.POSTGRESQL)
    return {row["name"]: row["ready"] for row in await connection.fetch(query.text, *query.values)}
