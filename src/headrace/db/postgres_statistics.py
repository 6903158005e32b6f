"""PostgreSQL's statistics of MLflow's tables, where there are none or the table has grown much since.

Autovacuum makes them a minute after many rows have come; a dump, a copy and an upgrade to PostgreSQL 17 or older bring
none. Until then a search may look at each tag of 2,000 runs for each of 2,000 runs (8 s, and 8 ms with them).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from headrace.db import schema
from headrace.db.connection_errors import FAILURES
from headrace.db.connections import Connection
from headrace.errors import HeadraceError

logger = logging.getLogger(__name__)

SMALL_BYTES = 65_536  # of a table, of which any plan is quick
GROWTH = 4  # times: what has grown so much since may be of another kind
SECONDS_AFTER_WRITES = 2.0

# ANALYZE and VACUUM keep in relpages how large they found a table.
_WITHOUT = """
SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relname = ANY ($1::name[]) AND c.relkind = 'r' AND pg_table_is_visible(c.oid) AND pg_relation_size(c.oid) > $2
  AND pg_has_role(c.relowner, 'USAGE')
  AND (NOT EXISTS (SELECT 1 FROM pg_stats s WHERE s.schemaname = n.nspname AND s.tablename = c.relname)
    OR pg_relation_size(c.oid) > $3 * c.relpages::bigint * current_setting('block_size')::bigint)
"""


async def complete(connection: Connection) -> None:
    """Have statistics of each table with more than SMALL_BYTES that is this role's own.

    PostgreSQL passes over one that is being analyzed, or gets an index. Raises OSError, asyncpg's errors.
    """
    for row in await connection.fetch(_WITHOUT, list(schema.TABLES), SMALL_BYTES, GROWTH):
        logger.debug("PostgreSQL makes statistics of the table %s, of which it has none or old ones", row["relname"])
        await connection.execute(f"ANALYZE (SKIP_LOCKED) {row['relname']}")


class Upkeep:
    """Completes them a moment after something was written; `use` has a connection. Nobody writes, nothing is asked."""

    def __init__(self, use: Callable[[], AbstractAsyncContextManager[Connection]]) -> None:
        self._use = use
        self._is_written = False
        self._looking: asyncio.Task[None] | None = None

    def written(self) -> None:
        """Rows come now."""
        self._is_written = True
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look())

    def close(self) -> None:
        """Look no more."""
        if self._looking is not None:
            self._looking.cancel()

    async def _look(self) -> None:
        while self._is_written:
            await asyncio.sleep(SECONDS_AFTER_WRITES)
            self._is_written = False
            try:
                async with self._use() as connection:
                    await complete(connection)
            except (*FAILURES, HeadraceError) as error:
                logger.debug("PostgreSQL's statistics can't be made: %s", error)
